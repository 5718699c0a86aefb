"""Hooks: checkpoints that can be read without running code from them, and random numbers that follow the iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...checkpoints import METADATA_KEY
from ...data.random_streams import seed_iteration, stream_seed
from ...errors import InputError
from .registry import HOOKS

_PLAIN = (str, bytes, int, float, bool, type(None))


@HOOKS.register_module()
class PortableCheckpointHook(Hook):
    """Makes mmengine's checkpoints tensors and plain values alone, so that PyTorch from 2.6 on resumes from them
    (``weights_only``), and writes into them what restoring needs: network and operating points.

    Of the message hub the histories of logged values are left out, of which the log's smoothed averages begin anew.
    """

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint['message_hub']
        known = {key: _plain(value) for key, value in hub['runtime_info'].items() if _is_plain(value)}
        checkpoint['message_hub'] = {'log_scalars': {}, 'runtime_info': known,
                                     'resumed_keys': {key: hub['resumed_keys'].get(key, True) for key in known}}
        for key in ('meta', 'optimizer', 'param_schedulers'):
            if key in checkpoint:
                checkpoint[key] = _plain(checkpoint[key])
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if hasattr(model, 'checkpoint_metadata'):
            checkpoint[METADATA_KEY] = model.checkpoint_metadata()


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds each iteration as BasicSR's loop does here, by seed, process and iteration alone: what is drawn does not depend on
    validation, nor on where a training was interrupted."""

    def before_train(self, runner: Runner) -> None:
        if not len(runner.train_dataloader):
            raise InputError(f'The training data set has {len(runner.train_dataloader.dataset)} images, fewer than one batch '
                             'on each process; lower batch_size, or raise the ratio of the DrawSampler.')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_iteration(stream_seed('iteration', runner.seed, runner.rank, runner.iter + 1))


def _plain(value: Any) -> Any:
    """The value with NumPy's numbers, which ``weights_only`` refuses, as Python's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (*_PLAIN, np.generic))
