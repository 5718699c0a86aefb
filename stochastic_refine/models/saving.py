"""Stopping a training at a whole iteration, and saving what it takes to go on."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
import torch.distributed as dist
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..checkpoints import METADATA_KEY
from ..checkpoints.sharded import save_sharded
from ..errors import InputError
from ..files import write_atomically
from .training_state import changed_options, options_in_states, resume_with_new_options


class SavedTraining:
    """Mixin for BasicSR models: Ctrl-C finishes the iteration, on all processes the same one, or the image under validation,
    saves and stops; checkpoints are whole or not there.
    """

    stop_requested = False
    #: The last iteration of this run that is whole; 0 before the first.
    finished_iter = 0
    #: The iteration that this run was resumed at; 0 if it was not.
    resumed_iter = 0

    def _request_stop(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once
        self.stop_requested = True

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop; all get the same answer, else one would wait for the others for ever."""
        stop = self.stop_requested or self.data_error is not None
        if not self.opt['dist']:
            return stop
        requested = torch.tensor(float(stop), device=self.device)
        dist.all_reduce(requested, dist.ReduceOp.MAX)
        return requested.item() > 0

    def before_validating_image(self, current_iter: int | str) -> None:
        if self.stop_requested and not self.opt['dist']:
            self.stop_if_agreed()

    def save_within_iteration(self, current_iter: int) -> None:
        """Save like BasicSR's loop, which alone knows the epoch, would after this iteration."""
        per_epoch = self.opt.get('iterations_per_epoch') or current_iter
        self.save((current_iter - 1) // per_epoch, current_iter)

    def stop_if_agreed(self) -> None:
        """Save and stop if any process was asked to, or cannot read its data; all processes call this at the same places."""
        if not self._stop_agreed():
            return
        saved = ''
        if self.opt['is_train'] and self.finished_iter:
            self.save_within_iteration(self.finished_iter)
            saved = f' and saved at iteration {self.finished_iter}; continue with --auto_resume'
        if self.opt['dist']:
            dist.barrier()  # torchrun ends the others as soon as one process has ended
        if self.data_error is not None:
            raise InputError(f'{self.data_error} Stopped{saved}.' if saved else str(self.data_error))
        raise KeyboardInterrupt(f'Stopped{saved}.')

    def checkpoint_metadata(self, net_label: str = 'net_g') -> dict[str, Any]:
        """What a network's checkpoint needs besides weights to be used again: plain values only."""
        return {'format': 1, 'network': self.network_options[net_label]}

    def save_network(self, net: nn.Module | list[nn.Module], net_label: str, current_iter: int,
                     param_key: str | list[str] = 'params') -> None:
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        name = 'latest' if current_iter == -1 else current_iter
        if not all(parameter.isfinite().all() for n in nets for parameter in n.parameters()):
            raise InputError(f'Training stopped at iteration {name}: the update made weights that are not finite, which were '
                             f'not saved; {self._last_checkpoint()} Lower the learning rate or set train: grad_clip.')
        content: dict[str, Any] = {key: dict(self.get_bare_model(n).state_dict()) for n, key in zip(nets, keys)}
        content[METADATA_KEY] = {**self.checkpoint_metadata(net_label), 'iteration': current_iter}
        self._write(os.path.join(self.opt['path']['models'], f'{net_label}_{name}.pth'), content)

    def training_state(self, epoch: int, current_iter: int) -> dict[str, Any]:
        """What resuming needs besides the networks: tensors and plain values only, the same on all processes."""
        return {
            'epoch': epoch,
            'iter': current_iter,
            'manual_seed': self.opt['manual_seed'],
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'options': options_in_states(self.opt['train']),
        }

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        if current_iter != -1:  # the final weights need no state
            path = os.path.join(self.opt['path']['training_states'], f'{current_iter}.state')
            self._write(path, self.training_state(epoch, current_iter))

    def _write(self, path: str, content: dict[str, Any]) -> None:
        """Write a checkpoint's file, or with ``sharded_checkpoints`` each process its share of a folder of that name."""
        if self.opt['logger'].get('sharded_checkpoints'):
            save_sharded(path, content)
        elif self.opt['rank'] == 0:
            write_atomically(path, lambda temporary: torch.save(tree_map_only(Tensor, Tensor.cpu, content), temporary))

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        changes = changed_options(resume_state, self.opt['train'])
        self.resumed_iter = resume_state['iter']
        try:
            if changes:
                resume_with_new_options(resume_state, self.optimizers, self.schedulers)
                get_root_logger().info(f"Changed from iteration {resume_state['iter'] + 1} on: {', '.join(changes)}.")
            else:
                super().resume_training(resume_state)
        except (AssertionError, KeyError, ValueError) as error:
            raise InputError(f"The training state {self.opt['path']['resume_state']} does not fit the networks and optimizers "
                             f'of the options file ({error}); correct the options, or start anew without resuming.') from error

    def _last_checkpoint(self) -> str:
        states = self.opt['path']['training_states']
        iterations = [int(f[:-6]) for f in os.listdir(states) if f[:-6].isdigit()] if os.path.isdir(states) else []
        return f'the checkpoint of iteration {max(iterations)} is intact.' if iterations else 'there was no checkpoint yet.'
