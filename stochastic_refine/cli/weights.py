"""``stochastic-refine weights``: published weights by name, and the user's own."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import Commands


def add_weights(commands: Commands) -> None:
    parser = commands.add_parser(
        'weights', help='get, import and list weights',
        description='Published weights, and your own, by name. They lie in the folder that the environment variable '
        'STOCHASTIC_REFINE_WEIGHTS names, else where this system keeps such data.')
    actions = parser.add_subparsers(title='actions', required=True, metavar='ACTION')
    listing = actions.add_parser('list', help='what is known, and what is on this machine')
    listing.set_defaults(run=_list)
    get = actions.add_parser('get', help='fetch published weights, or say how to', description='Fetch published weights, '
                             'verify and import them; a download that was interrupted goes on.')
    get.add_argument('name', help='as in weights list')
    get.set_defaults(run=_get)
    importing = actions.add_parser(
        'import', help='take a file of weights into the folder', description='Take a file of weights into the folder: the '
        'network is recognised by the names and shapes in it. Reads .pth, .pt, .safetensors, .npz, an npm package (.tgz), and '
        'the folder of a TensorFlow.js graph; runs no code of theirs.')
    importing.add_argument('path', metavar='FILE_OR_FOLDER')
    importing.add_argument('--name', help="the weights' name from now on (default: the file's); one of the catalogue says that "
                           'they are those')
    importing.add_argument('--set', nargs='+', default=[], metavar='KEY=VALUE', dest='settings', help='settings of the network '
                           'that names and shapes do not tell, for example residual_scale=8 predictor.global_skip=true')
    importing.set_defaults(run=_import)
    check = actions.add_parser('check', help='restore a bundled photo and compare')
    check.add_argument('name', help='name, or a file of weights')
    check.set_defaults(run=_check)
    remove = actions.add_parser('remove', help='remove weights from the folder')
    remove.add_argument('name')
    remove.set_defaults(run=_remove)


def _list(args: argparse.Namespace) -> None:
    from ..checkpoints.weights_folder import user_folder
    from ..inference.store import list_weights
    rows = list_weights()
    print(f'Your weights: {user_folder()}\n')
    width = max(len(row.name) for row in rows)
    for row in rows:
        size = f'{row.bytes / 1e6:.0f} MB' if row.bytes else '-'
        facts = [row.network or '-', row.data or '-', row.scores or '-', size, row.licence or '-', row.source or '-']
        line = f'{row.name:<{width}}  {row.state:<7}  {" | ".join(facts)}'
        print(textwrap.fill(line, 128, subsequent_indent=' ' * (width + 11), break_long_words=False, break_on_hyphens=False))
    print('\nThe columns: name, where it is, network | trained on | published PSNR (SSIM) | size | licence | source.\n'
          'get: stochastic-refine weights get NAME')


def _get(args: argparse.Namespace) -> None:
    from ..inference.getting import get_weights
    path, checkpoint, said = get_weights(args.name)
    for words in said:
        print(f'{words}.')
    if checkpoint is not None:
        _tell_use(args.name, path, checkpoint)


def _import(args: argparse.Namespace) -> None:
    from ..inference.store import import_weights
    name, path, checkpoint = import_weights(Path(args.path), args.name, _settings(args.settings))
    for note in checkpoint.notes:
        print(f'Note: {note}.')
    _tell_use(name, path, checkpoint)


def _tell_use(name: str, path: Path, checkpoint: Any) -> None:
    network = dict(checkpoint.metadata['network'])
    print(f'{name}: {network.pop("type")} {network}\n'
          f'Written to {path}. Use it: stochastic-refine restore PHOTO -o OUT -w {name}')


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition('=')
        if not key or not equals:
            raise InputError(f"--set {pair} is no KEY=VALUE; write for example residual_scale=8.")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: '{value}' is no value; write a number, true, false or a word.") from error
    return settings


def _check(args: argparse.Namespace) -> None:
    from ..inference.trial import check_weights
    trial = check_weights(args.name)
    print(f'{args.name}: {trial.network} with {trial.million_params:.2f} M parameters loads, and restores the bundled photo in '
          f'{trial.seconds:.1f} s: PSNR {trial.before:.2f} dB before, {trial.after:.2f} dB after.')
    print('No result is stored to compare with.' if trial.agreement is None else
          f'As it should: {trial.agreement:.1f} dB to the stored result.')


def _remove(args: argparse.Namespace) -> None:
    from ..inference.store import remove_weights
    print(f'Removed {remove_weights(args.name)}.')
