"""Weights as repositories of the Hugging Face hub hold them: a folder of ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, words_of
from ..files import write_json
from .files import Checkpoint, read_checkpoint, save_safetensors

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
#: What ``config.json`` holds beside the network's options.
_BESIDE = ('operating_points', 'tradeoff', 'window', 'iteration', 'card')
#: USER/NAME; what ends like a file of weights is a path.
_REPOSITORY = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*(?<!\.pth)(?<!\.pt)(?<!\.safetensors)(?<!\.npz)(?<!\.ckpt)')


def is_hub_folder(path: Path) -> bool:
    """Whether ``path`` is such a folder, whole or with its ``config.json`` missing."""
    return (path / WEIGHTS).is_file()


def write_hub_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whose metadata know the network into a folder that exists.

    The hub's tools sort a file's keys, and the first operating point is the default: so points are a list of pairs there.
    """
    metadata = checkpoint.metadata
    beside = {key: metadata[key] for key in _BESIDE if key in metadata}
    if 'operating_points' in beside:
        beside['operating_points'] = [list(pair) for pair in beside['operating_points'].items()]
    save_safetensors(folder / WEIGHTS, checkpoint.params, {})
    write_json(folder / CONFIG, {**metadata['network'], **beside}, indent=2)


def read_hub_folder(folder: Path) -> Checkpoint:
    """Read such a folder.

    Raises:
        InputError: If ``config.json`` is missing or damaged, or tells no network of ours.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise InputError(f'{folder} has a {WEIGHTS} and no {CONFIG}, which tells the network; get the whole repository.')
    try:
        config = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{file} is damaged ({words_of(error)}); get it again.') from error
    if not isinstance(config, Mapping) or not isinstance(config.get('type'), str):
        told = config.get('architectures') or config.get('model_type') if isinstance(config, Mapping) else None
        whose = f' ({str(told)[:80]})' if told else ''
        raise InputError(f"{file} is of another library's network{whose}: it names no type of ours; give a repository that "
                         'HubPredictRefineNet.save_pretrained wrote.')
    beside: dict[str, Any] = {key: config[key] for key in _BESIDE if key in config}
    points = beside.get('operating_points', [])
    if not isinstance(points, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in points):
        raise InputError(f'{file}: operating_points must be a list of pairs of name and settings; save it anew.')
    beside['operating_points'] = {str(name): point for name, point in points}
    network = {key: value for key, value in config.items() if key not in _BESIDE}
    return Checkpoint(read_checkpoint(folder / WEIGHTS).params, {**beside, 'network': network})


def is_repository(name: str) -> bool:
    """Whether ``name`` can be that of a repository: USER/NAME, and no such folder begins here."""
    return _REPOSITORY.fullmatch(name) is not None and not Path(name.split('/')[0]).exists()


def fetch_hub_folder(name: str, **options: Any) -> Path:
    """The folder of a repository in the hub's cache, fetched if need be.

    Args:
        name: USER/NAME.
        **options: Of ``huggingface_hub.hf_hub_download``: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ...

    Raises:
        InputError: If huggingface_hub is missing, or the repository cannot be had.
    """
    if importlib.util.find_spec('huggingface_hub') is None:
        raise InputError(f'{name} is no file or folder here; for a repository of that name on the Hugging Face hub run: pip '
                         "install 'stochastic_refine[hub]'.")
    from huggingface_hub import hf_hub_download
    try:
        for file in (WEIGHTS, CONFIG):
            path = hf_hub_download(name, file, **options)
    except Exception as error:  # of many kinds: no network, no such repository, a bad token
        raise InputError(f'{name} is no file or folder here, and cannot be had from the Hugging Face hub ({words_of(error)}); '
                         'check the name and the network.') from error
    return Path(path).parent
