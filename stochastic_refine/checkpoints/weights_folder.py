"""Weights by name: the bundled ones, and those in the user's folder of weights."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..values import nearest
from .catalogue import catalogue
from .hub_folder import fetch_hub_folder, is_hub_folder, is_repository
from .part_files import has_parts
from .sharded import is_sharded

#: Weights that ship with the package.
BUNDLED = Path(__file__).resolve().parents[1] / 'weights'
#: Ends the name of weights that refine what the weights before it predict: ``maxim-gopro+refine``.
REFINED = '+refine'
#: Environment variable that names another folder for the user's weights.
WEIGHTS_VARIABLE = 'STOCHASTIC_REFINE_WEIGHTS'


def user_folder() -> Path:
    """The folder of the user's weights: the one that STOCHASTIC_REFINE_WEIGHTS names, else the system's place for such data."""
    if os.environ.get(WEIGHTS_VARIABLE):
        return Path(os.environ[WEIGHTS_VARIABLE]).expanduser()
    import platformdirs
    return platformdirs.user_data_path('stochastic_refine', appauthor=False) / 'weights'


def available_weights() -> dict[str, Path]:
    """The files of the weights that can be given by name; the user's go before bundled ones of the same name."""
    return {path.stem: path for folder in (BUNDLED, user_folder()) if folder.is_dir() for path in sorted(folder.iterdir())
            if path.suffix in ('.safetensors', '.pth') and not path.name.startswith('.')}


def find_weights(name_or_path: str | Path) -> Path:
    """The file, or folder, behind a name or a path; behind USER/NAME of the Hugging Face hub its folder in the hub's cache.

    Raises:
        InputError: If there is none; the message lists the known names, or says how to get the one that is meant.
    """
    known = available_weights()
    name = str(name_or_path)
    if name in known:
        return known[name]
    path = Path(name_or_path).expanduser()
    if path.is_file() or is_sharded(path) or (path / 'model.json').is_file() or has_parts(path) or is_hub_folder(path):
        return path
    if (path / 'model_index.json').is_file():
        raise InputError(f'{name} is a diffusers folder, which a system on Stable Diffusion is built on (network_g: base); '
                         'weights to restore with are a single file, so give one.')
    if is_repository(name):
        return fetch_hub_folder(name)
    if path.suffix or os.sep in name:
        raise InputError(f'Weights {name_or_path} do not exist; check the path, or give one of the names '
                         f'{", ".join(sorted(known))}.')
    published = catalogue()
    if name in published:
        raise InputError(f'The weights {name} are known and not on this machine; get them first: stochastic-refine weights get '
                         f'{name}')
    raise InputError(f"There are no weights called '{name}'; {nearest(name, {*known, *published})}")


def check_name(name: str) -> None:
    """Check that a name can be given to weights.

    Raises:
        InputError: If it cannot become a file's name on every system.
    """
    if not (name and len(name) <= 100 and name[0].isalnum() and all(c.isalnum() or c in '._+-' for c in name)
            and name.isascii()):
        raise InputError(f"'{name[:100]}' is no name for weights; use letters, digits, '-', '_', '+' and '.', and begin with a "
                         'letter or digit, for example --name nafnet-gopro.')
