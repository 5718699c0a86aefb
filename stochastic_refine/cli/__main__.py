"""``python -m stochastic_refine.cli``, as torchrun starts it."""

import sys

from . import main

if __name__ == '__main__':  # processes that are spawned import this file
    sys.exit(main())
