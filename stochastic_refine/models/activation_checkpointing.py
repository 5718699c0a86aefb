"""Activation checkpointing: training with less memory, since blocks of the network are computed again in the backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..values import nearest

WHERE = 'train: activation_checkpointing'


def check_setting(setting: Any) -> None:
    """Check the option ``activation_checkpointing``: true, false or class names.

    Raises:
        InputError: If it is anything else.
    """
    names = isinstance(setting, list) and all(isinstance(name, str) for name in setting)
    if not (setting is None or isinstance(setting, bool) or names):
        raise InputError(f'{WHERE} must be true, false or a list of class names like [ResidualBlock], got {setting!r}.')


def checkpoint_activations(net: nn.Module, classes: bool | Sequence[str]) -> Counter[str]:
    """Let blocks of ``net`` keep only their inputs for the backward pass, which then computes the rest again.

    Gradients stay the same bit for bit; of the state dict, parameter names and copies nothing changes. Without gradients a
    block runs as before.

    Args:
        net: The network, changed in place.
        classes: Class names of the blocks; true for :func:`repeated_blocks`.

    Returns:
        How many blocks of each class were changed.

    Raises:
        InputError: If the network has no such module, naming the nearest class.
    """
    if classes is True:
        blocks = repeated_blocks(net)
        if not blocks:
            raise InputError(f'{WHERE}: {type(net).__name__} has no repeated blocks of its own; give the names of the classes '
                             f'to be computed again, for example [{type(next(net.children())).__name__}].')
    else:
        present = {type(module).__name__ for module in net.modules()}
        for name in classes:
            if name not in present:
                raise InputError(f"{WHERE}: {type(net).__name__} has no module of class '{name}'; {nearest(name, present)}")
        blocks = [module for module in net.modules() if type(module).__name__ in classes]
    changed = Counter(type(block).__name__ for block in blocks)
    for block in blocks:
        # A class of its own, as FSDP does it: an attribute `forward` would not follow copies, nor DataParallel's replicas.
        cls = type(block)
        block.__class__ = type(cls.__name__, (_Recomputed, cls), {'__module__': cls.__module__, '__doc__': cls.__doc__})
    return changed


def repeated_blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks that ``net`` is a chain of: the outermost elements of a Sequential or ModuleList, of a class that is not
    PyTorch's own, that occurs there more than once."""
    elements = [module for parent in net.modules() if isinstance(parent, (nn.Sequential, nn.ModuleList)) for module in parent
                if not type(module).__module__.startswith('torch.')]
    counts = Counter(map(type, elements))
    repeated = {id(module) for module in elements if counts[type(module)] > 1}

    def outermost(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if id(child) in repeated:
                yield child
            else:
                yield from outermost(child)

    return list(dict.fromkeys(outermost(net)))  # a module may be in two places


class _Recomputed(nn.Module):
    """Mixed in before a block's class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        buffers = list(self.buffers())
        contexts = {'context_fn': lambda: _same_buffers(buffers)} if buffers else {}
        return checkpoint(super().forward, *args, use_reentrant=False, **contexts, **kwargs)


def _same_buffers(buffers: Sequence[Tensor]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of forward and recomputation: the second starts from the buffers that the first did, and leaves no trace.

    Else batch-norm statistics would be updated twice, and spectral normalisation would divide by another norm.
    """
    before = [buffer.clone() for buffer in buffers]

    @contextmanager
    def recomputation() -> Iterator[None]:
        after = [buffer.clone() for buffer in buffers]
        with torch.no_grad():
            _copy(before, buffers)
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(after, buffers)

    return nullcontext(), recomputation()


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets):
        target.copy_(source)
