"""``stochastic-refine list``: networks, models, samplers and weights."""

from __future__ import annotations

import argparse

from .arguments import Commands


def add_list(commands: Commands) -> None:
    commands.add_parser('list', help='list networks, models, samplers and weights').set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..archs import ARCHS
    from ..archs.sampling import NATIVE
    from ..checkpoints.weights_folder import available_weights
    from ..diffusion import SAMPLERS
    from ..registration import MODELS
    rows = {'networks': ARCHS, 'models': MODELS, 'samplers': [*SAMPLERS, NATIVE]}
    for title, names in rows.items():
        print(f'{title}: {", ".join(sorted(names))}')
    print('weights:')
    for name, path in available_weights().items():
        print(f'  {name}  {path.stat().st_size / 2**20:.1f} MiB  {path}')
