"""Sharded checkpoints: folders into which every process of a training writes its share.

Such a folder holds what one file of ``torch.save`` would: nested dicts and lists, whose tensors lie in ``*.safetensors``
(written by torch.distributed.checkpoint, each tensor by one process, evenly by size), and all else, with the list of the
shards, in ``index.pth``. It appears under its name only when it is whole. Nothing in it can run code when it is read.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError
from .torch_files import read_torch_file

INDEX = 'index.pth'
_TENSOR = '__tensor__'  # in the index: the name of the tensor that stands here


def is_sharded(path: str | Path) -> bool:
    """Whether ``path`` is the folder of a sharded checkpoint."""
    return (Path(path) / INDEX).is_file()


def check_shardable() -> None:
    """Raise an InputError if this PyTorch cannot write shards."""
    from torch.distributed import checkpoint as dcp
    if not hasattr(dcp, 'HuggingFaceStorageWriter'):
        raise InputError(f'Sharded checkpoints need PyTorch 2.8, and this is {torch.__version__}; update PyTorch, or leave out '
                         'sharded_checkpoints.')


def save_sharded(path: str | Path, content: dict[str, Any]) -> None:
    """Write ``content`` to the folder ``path``; all processes call this together, with equal contents.

    Args:
        path: The folder, replaced if it exists; the one that it lies in must exist, for all processes the same.
        content: Dicts with keys that are text or numbers, lists and tuples of tensors (on any device) and plain values.

    Raises:
        InputError: If it cannot be written; nothing is left behind.
    """
    from torch.distributed import checkpoint as dcp
    path = Path(path)
    temporary = path.with_name(f'.{path.name}')
    first = not dist.is_initialized() or dist.get_rank() == 0
    tensors: dict[str, Tensor] = {}
    structure = _take_tensors(content, '', tensors)
    try:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        _wait()
        with warnings.catch_warnings():  # that there is but one process
            warnings.filterwarnings('ignore', message='torch.distributed is disabled')
            writer = dcp.HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, planner=_planner(), no_dist=not dist.is_initialized())
        if first:
            shards = sorted(file.name for file in temporary.iterdir())
            with open(temporary / INDEX, 'wb') as file:
                torch.save({'shards': shards, 'content': structure}, file)
                os.fsync(file.fileno())
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(temporary, path)
    except BaseException as error:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        # CheckpointException, which holds every process's error, is no Exception
        if isinstance(error, (OSError, RuntimeError, dcp.CheckpointException)):
            if isinstance(error, dcp.CheckpointException):
                error = next(failure for failure, _ in error.failures.values())
            raise InputError(f'{path} could not be written ({error}); free some space or choose another folder.') from error
        raise


def read_sharded(path: str | Path) -> dict[str, Any]:
    """What :func:`save_sharded` was given, on the CPU.

    Raises:
        InputError: If the folder is no sharded checkpoint, or a part of it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open
    path = Path(path)
    if not is_sharded(path):
        raise InputError(f'{path} is a folder without {INDEX}, so no sharded checkpoint; give a checkpoint.')
    index = read_torch_file(path / INDEX)
    tensors: dict[str, Tensor] = {}
    try:
        for part in index['shards']:
            with safe_open(path / Path(part).name, framework='pt') as file:
                tensors.update((name, file.get_tensor(name)) for name in file.keys())
        return _put_tensors(index['content'], tensors)
    except FileNotFoundError as error:
        raise InputError(f'Checkpoint {path} lacks its part {part}; copy the whole folder again.') from error
    except SafetensorError as error:
        raise InputError(f'Checkpoint {path}: its part {part} is damaged or cut short; copy the whole folder again.') from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f'Checkpoint {path}: {INDEX} does not fit its other parts; copy the whole folder again.') from error


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` with its tensors moved to ``tensors``, named by their place, and a note left where each was."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        # safetensors have no strides; an optimizer's state is laid out as its parameter is
        return {_TENSOR: name, 'channels_last': value.dim() == 4 and not value.is_contiguous()}
    if type(value) in (dict, OrderedDict):
        return {key: _take_tensors(item, f'{name}/{key}' if name else str(key), tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_take_tensors(item, f'{name}/{i}', tensors) for i, item in enumerate(value))
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` with each tensor, used once, back in its place."""
    if type(value) is dict and _TENSOR in value:
        layout = torch.channels_last if value['channels_last'] else torch.contiguous_format
        return tensors.pop(value[_TENSOR]).contiguous(memory_format=layout)
    if type(value) is dict:
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_put_tensors(item, tensors) for item in value)
    return value


def _planner() -> Any:
    """DCP's, with tensors laid out as safetensors wants them; only a process's own share passes through."""
    from torch.distributed.checkpoint import DefaultSavePlanner

    class ContiguousPlanner(DefaultSavePlanner):

        def resolve_data(self, write_item: Any) -> Any:
            return super().resolve_data(write_item).contiguous()

    return ContiguousPlanner(flatten_state_dict=False)


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
