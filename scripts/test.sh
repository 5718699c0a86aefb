#!/usr/bin/env bash
# Set up and run the tests: bash scripts/test.sh [pytest's arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec python -m pytest "$@"
