#!/usr/bin/env bash
# Set up, restore blurred photos with the bundled weights, then train some iterations and validate.
# Results: demo/restored.png (look at it), experiments/train_demo/
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python scripts/demo.py
python basicsr/train.py -opt options/train_demo.yml
