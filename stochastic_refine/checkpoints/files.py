"""Checkpoint files: what is in them, how they are read safely and written.

A checkpoint is BasicSR's ``.pth`` (``{'params': ..., 'params_ema': ...}``) or a ``.safetensors`` file. Ours also carries, under
``stochastic_refine``, what is needed to restore with it and no YAML: the network's options and its operating points.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import write_atomically
from .sharded import is_sharded, read_sharded
from .torch_files import read_torch_file

METADATA_KEY = 'stochastic_refine'
#: Keys under which projects of this field wrap a state dict; the first one present is taken.
_WRAPPERS = ('params_ema', 'params', 'state_dict', 'model_state_dict', 'model', 'net', 'generator')
_MOST_WRAPPED = 4  # one in another


@dataclass
class Checkpoint:
    """Weights as read from a file: ``params`` maps parameter names to tensors, ``metadata`` is {} in foreign files.

    ``notes`` are what a user should know of how they were read.
    """

    params: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, prefer: str = 'params_ema') -> Checkpoint:
    """Read a ``.pth`` or ``.safetensors`` checkpoint, or the folder of a sharded one, onto the CPU; code in it is never run.

    Args:
        path: The file or folder.
        prefer: Which weights to take where a file wraps several; others are taken where it has none under this key.

    Raises:
        InputError: If the file is missing, damaged, holds objects other than tensors and plain values, or no weights.
    """
    path = Path(path)
    if path.is_dir():
        return _unwrap(read_sharded(path), path, prefer)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    return _unwrap(read_torch_file(path), path, prefer)


def _unwrap(content: Any, path: Path, prefer: str) -> Checkpoint:
    metadata = {}
    if isinstance(content, Mapping):
        metadata = content.get(METADATA_KEY, {})
        if 'message_hub' in content and isinstance(content.get('state_dict'), Mapping):
            content = _of_mmengine(content, prefer)
    for _ in range(_MOST_WRAPPED):
        if isinstance(content, Mapping):
            key = next((key for key in (prefer, *_WRAPPERS) if isinstance(content.get(key), Mapping)), None)
            content = content[key] if key else content
    if not isinstance(content, Mapping) or not content or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        raise InputError(f'Checkpoint {path} holds no weights; a state dict, bare or under one of '
                         f'{", ".join(_WRAPPERS)}, is expected.')
    params = {key.removeprefix('module.'): value for key, value in content.items()}
    bad = next((key for key, value in params.items() if value.layout != torch.strided or value.device.type != 'cpu'), None)
    if bad is not None:
        raise InputError(f'Checkpoint {path}: {bad} is no dense tensor; save an ordinary state dict.')
    stored = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    # Views of one small storage can pretend to be gigabytes; a tied weight is one that is there twice
    if sum(value.numel() * value.element_size() for value in params.values()) > 10 * stored:
        raise InputError(f'Checkpoint {path} declares weights of many times its own size, as a trap does; save it anew.')
    return Checkpoint(params, _checked_metadata(metadata, path))


def _of_mmengine(content: Mapping[str, Any], prefer: str) -> Mapping[str, Any]:
    """The network's weights in a checkpoint of mmengine's, whose averaging hook exchanges averaged and own ones in it."""
    own = content.get('ema_state_dict') if prefer == 'params' else None
    weights = {str(key).removeprefix('module.'): value
               for key, value in (own if isinstance(own, Mapping) else content['state_dict']).items()}
    return {key.removeprefix('net.'): value for key, value in weights.items() if key.startswith('net.')} or weights


def _checked_metadata(metadata: Any, path: Path) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InputError(f'Checkpoint {path}: its metadata under {METADATA_KEY} is no block of keys; save it anew.')
    return dict(metadata)


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open
    if not path.is_file():
        raise InputError(f'Checkpoint {path} does not exist; check the path.')
    try:
        with safe_open(path, framework='pt') as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
            params = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f'Checkpoint {path} is damaged or no safetensors file; copy or download it again.') from error
    return Checkpoint(params, _checked_metadata(metadata, path))


def save_safetensors(path: str | Path, params: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata atomically; tensors keep their dtype."""
    from safetensors.torch import save_file
    tensors, seen = {}, set()
    for key, value in params.items():
        value = value.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        tensors[key] = value.clone() if storage in seen else value  # the format has no tied weights: they are there twice
        seen.add(storage)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata)}))


def tensors_sha256(params: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values, in whatever file or order they are."""
    digest = hashlib.sha256()
    for name, value in sorted(params.items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)} '.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_metadata(source: str | Path, target: str | Path, key: str, value: Any) -> None:
    """Write ``target`` atomically: the checkpoint ``source`` with one entry of its metadata set, all else as it is.

    Args:
        source: A checkpoint of ours.
        target: The file to write, with the same suffix; it may be ``source`` itself.
        key, value: The entry; plain values that JSON has too.

    Raises:
        InputError: If the source cannot be used, is not ours, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    metadata = {**read_checkpoint(source).metadata, key: value}
    if 'network' not in metadata:
        raise InputError(f'{source} does not say which network it belongs to, since it was not saved by stochastic_refine; '
                         'nothing can be stored in it.')
    if is_sharded(source):
        raise InputError(f'{source} is a sharded checkpoint, in which nothing can be stored; make a file of it with '
                         'scripts/export_weights.py first.')
    if source.suffix != target.suffix:
        raise InputError(f'{target} would be a copy of {source}, so its suffix must be {source.suffix}.')
    if source.suffix == '.safetensors':
        from safetensors import safe_open
        from safetensors.torch import save_file
        with safe_open(source, framework='pt') as file:
            texts = {**file.metadata(), METADATA_KEY: json.dumps(metadata)}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        write_atomically(target, lambda temporary: save_file(tensors, temporary, texts))
        return
    content = read_torch_file(source)
    write_atomically(target, lambda temporary: torch.save({**content, METADATA_KEY: metadata}, temporary))


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files and folders that a process killed while it saved left; none may be saving there now."""
    for path in Path(folder).glob('.*.*'):
        if path.suffix in ('.pth', '.state'):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def load_weights(net: nn.Module, params: Mapping[str, Tensor], where: str) -> None:
    """Load ``params`` strictly into ``net``, casting to its dtype.

    Raises:
        InputError: As :func:`check_fit`.
    """
    check_fit(net, params, where)
    net.load_state_dict(params)


def check_fit(net: nn.Module, params: Mapping[str, Tensor], where: str) -> None:
    """Check that ``params`` are weights of ``net``, which may be on the meta device.

    Raises:
        InputError: If names or shapes do not fit, with how many and the first of each, or values are NaN or infinite.
    """
    own = net.state_dict()
    problems = [words for _, words in shape_problems(own, params)]
    if problems:
        raise InputError(f"{where} holds weights of another network than {type(net).__name__} with these options: "
                         f"{'; '.join(problems)}. Choose the checkpoint or the options that belong together.")
    broken = [key for key in sorted(own) if own[key].is_floating_point() and not torch.isfinite(params[key].float()).all()]
    if broken:
        raise InputError(f'{where} has NaN or infinity in {len(broken)} of its {len(own)} tensors (first: {broken[0]}), as '
                         'after a training that diverged; take an earlier checkpoint.')


def shape_problems(own: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> list[tuple[int, str]]:
    """How ``params`` differ from a network's ``own`` state dict in names, shapes and kinds of numbers: (how many, words)."""
    missing, unexpected = sorted(own.keys() - params.keys()), sorted(params.keys() - own.keys())
    shared = sorted(own.keys() & params.keys())
    shapes = [f'{key} is {tuple(params[key].shape)}, not {tuple(own[key].shape)}'
              for key in shared if own[key].shape != params[key].shape]
    kinds = [f'{key} is {params[key].dtype}'
             for key in shared if own[key].is_floating_point() != params[key].is_floating_point()]
    return [(len(found), f'{len(found)} {what} (first: {found[0]})') for what, found in (
        ('missing', missing), ('unexpected', unexpected), ('of another shape', shapes), ('of another type', kinds)) if found]
