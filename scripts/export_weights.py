"""Make weights to ship from a training's checkpoint: averaged weights, half precision, operating points, model card.

python scripts/export_weights.py experiments/small/models/net_g_latest.pth stochastic_refine/weights/small.safetensors \
    --points options/small/test_small.yml --card stochastic_refine/weights/small.md [--over maxim-gopro]

With --over, of a refiner over frozen weights of that name, which the file then names and does not hold.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import yaml

from stochastic_refine.archs.build import without_pretrained
from stochastic_refine.archs.pretrained import PREDICTOR_KEY, read_weights
from stochastic_refine.checkpoints import read_checkpoint, save_safetensors
from stochastic_refine.checkpoints.files import tensors_sha256
from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import OperatingPoint


def main() -> int:
    """Run the script; exit code 2 with a sentence if the input cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--points', type=Path, required=True,
                        help='options file whose operating points are stored, best known first')
    parser.add_argument('--card', type=Path, help='model card (Markdown) to store along')
    parser.add_argument('--over', metavar='NAME', help='weights of the frozen predictor, left out')
    args = parser.parse_args()
    try:
        checkpoint = read_checkpoint(args.checkpoint)
        if 'network' not in checkpoint.metadata:
            raise InputError(f'{args.checkpoint} does not say which network it holds; export a checkpoint of this package.')
        named = yaml.safe_load(args.points.read_text())['val']['operating_points']
        points = {name: OperatingPoint.from_options(options, name).as_options() for name, options in named.items()}
        metadata = {**checkpoint.metadata, 'operating_points': points}
        if args.card:
            metadata['card'] = args.card.read_text()
        params = {key: value.to(torch.float16) for key, value in checkpoint.params.items()}
        if args.over:
            held = {key.removeprefix('predictor.'): value for key, value in checkpoint.params.items()
                    if key.startswith('predictor.')}
            digest = tensors_sha256(read_weights(find_weights(args.over)).params)
            if tensors_sha256(held) != digest:
                raise InputError(f'{args.checkpoint} holds another predictor than {args.over}; name the one that it was '
                                 'trained over.')
            params = {key: value for key, value in params.items() if not key.startswith('predictor.')}
            metadata |= {'network': without_pretrained(metadata['network']),
                         PREDICTOR_KEY: {'name': args.over, 'tensors_sha256': digest}}
        save_safetensors(args.output, params, metadata)
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    print(f'{args.output}: {args.output.stat().st_size / 2**20:.2f} MiB, operating points {", ".join(points)}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
