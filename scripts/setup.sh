#!/usr/bin/env bash
# Make a virtual environment in .venv (or $VENV) and install this package with everything its tests and demo use.
# Sourced by demo.sh and test.sh; does nothing if the environment is complete. EXTRAS: the extras, instead of all that are used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}

if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    echo "Error: training needs Python 3.11 or 3.12, and $PYTHON is $("$PYTHON" -V 2>&1); set PYTHON=/path/to/python3.12." >&2
    exit 2
fi
if [ ! -f "$VENV/complete" ] || [ setup.py -nt "$VENV/complete" ]; then
    echo "Setting up $VENV (a few minutes, about 6 GB: PyTorch's ordinary build)"
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/pip" install -q --upgrade pip setuptools wheel
    "$VENV/bin/pip" install -q torch torchvision
    # BasicSR's build asks for torch again; without build isolation it takes the one that is there.
    "$VENV/bin/pip" install -q cython numpy
    "$VENV/bin/pip" install -q --no-build-isolation basicsr
    "$VENV/bin/pip" install -q -e ".[${EXTRAS:-test,demo}]"
    touch "$VENV/complete"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
