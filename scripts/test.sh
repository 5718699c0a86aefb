#!/usr/bin/env bash
# Set up and run the tests, a file of them per core at a time: bash scripts/test.sh [pytest's arguments]
# In one process, for a debugger or to read along: bash scripts/test.sh -n 0 [pytest's arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # a worker per core; more threads than cores wait for each other
exec python -m pytest -n logical --maxprocesses 4 --dist loadfile "$@"
