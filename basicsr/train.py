"""Train by an options file: ``python basicsr/train.py -opt options/train_gopro.yml``, with all of BasicSR's flags.

This folder is no package: ``import basicsr`` finds the installed BasicSR, whose pipeline is run.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stochastic_refine.integrations.basicsr.launch import main  # noqa: E402

if __name__ == '__main__':  # data loading workers import this file
    sys.exit(main('train', str(ROOT)))
