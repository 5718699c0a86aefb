"""RestorationModel: BasicSR's SRModel with what long trainings of restoration networks need."""

from __future__ import annotations

import math
import os
import signal
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..archs.build import check_arch_options, nearest, without_pretrained
from ..archs.predict_refine_arch import final_output
from ..checkpoints import METADATA_KEY, load_weights, read_checkpoint, write_atomically
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .validation import ShardedValidation

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


class RestorationModel(ShardedValidation, SRModel):
    """Trains and validates any network that maps a degraded image to a restored one.

    On top of ``SRModel`` (keys of ``train:``):
        precision: ``float32`` (default) or ``bfloat16`` autocast; weights, losses and EMA stay in float32.
        accumulate: Split each loaded batch into this many parts, whose gradients are added up: one optimizer step per
            iteration and the same result as in one go, with the memory of a part.
        grad_clip: Largest norm of the gradient.
        compile: Compile the network with torch.compile.
        optim_g.type: Any optimizer of ``torch.optim``.
    A loss or gradient that is not finite stops the training before it can spoil weights or checkpoints. Checkpoints are
    written atomically and carry the network's options. Ctrl-C finishes the iteration (on all processes the same one), or the
    image under validation, saves and stops.

    Overridden: network loading, device placement (CPU and gloo too), optimizer choice, EMA (buffers too), the optimization
    step, saving, and validation (:class:`ShardedValidation`). Inherited: losses, schedulers, logging, resuming.
    """

    stop_requested = False

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        """Check this model's own options, before anything is created.

        Raises:
            InputError: At the first that it would fail over, or pass over.
        """
        val = opt.get('val') or {}
        for where, block in (('train', opt.get('train') or {}), ('val', val)):
            if block.get('precision', 'float32') not in PRECISIONS:
                raise InputError(f"{where}: precision must be float32 or bfloat16, got '{block['precision']}'.")
        tile = val.get('tile', 'auto')
        if tile not in (None, 'auto') and (not isinstance(tile, int) or tile < 1):
            raise InputError(f"val: tile must be auto, ~ or a number of pixels, got '{tile}'.")
        if opt['is_train']:
            cls.check_losses(opt['train'])

    @classmethod
    def check_losses(cls, train_opt: dict[str, Any]) -> None:
        """Check that ``train:`` has the losses that this model needs, and none that it cannot use."""
        if not train_opt.get('pixel_opt') and not train_opt.get('perceptual_opt'):
            raise InputError('train: needs a loss; give pixel_opt, for example {type: L1Loss, loss_weight: 1.0, reduction: '
                             'mean}.')
        if train_opt.get('accumulate', 1) > 1:
            for key, options in train_opt.items():
                if isinstance(options, dict) and options.get('reduction') == 'sum':
                    raise InputError(f'train: {key}: reduction sum does not go with accumulate, whose parts are averaged; '
                                     'use mean.')

    def __init__(self, opt: dict[str, Any]) -> None:
        check_arch_options(opt['network_g'], 'network_g')
        self.check_options(opt)
        self.network_options = without_pretrained(opt['network_g'])
        super().__init__(opt)

    # ---------------------------------------------------------------- set-up

    def init_training_settings(self) -> None:
        train_opt = self.opt['train']
        self.precision = train_opt.get('precision', 'float32')
        self.accumulate = train_opt.get('accumulate', 1)
        self.grad_clip = train_opt.get('grad_clip')
        super().init_training_settings()
        self._copy_buffers_to_ema()
        if train_opt.get('compile'):
            self.get_bare_model(self.net_g).compile()
        signal.signal(signal.SIGINT, self._request_stop)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        net = net.to(self.device, memory_format=torch.channels_last)
        if self.opt['dist']:
            device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            return DistributedDataParallel(
                net, device_ids=device_ids, find_unused_parameters=self.opt.get('find_unused_parameters', False))
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = 'params') -> None:
        """Load a ``.pth`` or ``.safetensors`` checkpoint, bare or wrapped, without running code from it."""
        net = self.get_bare_model(net)
        checkpoint = read_checkpoint(load_path, prefer=param_key)
        get_root_logger().info(f'Loading {type(net).__name__} from {load_path}.')
        if strict:
            load_weights(net, checkpoint.params, load_path)
        else:
            own = net.state_dict()
            fitting = {k: v for k, v in checkpoint.params.items() if k in own and own[k].shape == v.shape}
            if not fitting:
                raise InputError(f'{load_path} has no parameter in common with {type(net).__name__}; choose another '
                                 'checkpoint.')
            get_root_logger().warning(f'{len(fitting)} of {len(own)} parameters taken from {load_path}.')
            net.load_state_dict(fitting, strict=False)

    def get_optimizer(self, optim_type: str, params: list[nn.Parameter], lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        known = [name for name, item in vars(torch.optim).items() if isinstance(item, type)]
        if optim_type not in known:
            raise InputError(f"train: optim_g has an unknown type '{optim_type}'; {nearest(str(optim_type), known)}")
        try:
            return getattr(torch.optim, optim_type)(params, lr, **kwargs)
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f'train: optim_g: {optim_type} refuses its arguments ({error}); correct them.') from error

    def setup_schedulers(self) -> None:
        try:
            super().setup_schedulers()
        except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
            raise InputError(f'train: scheduler cannot be made ({error}); correct its type or arguments.') from error

    # ---------------------------------------------------------------- one iteration

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """The weighted losses of one part of a batch; their sum is minimised."""
        with self._autocast():
            outputs = self.net_g(lq)
        output = final_output(self.get_bare_model(self.net_g), outputs).float()
        losses = OrderedDict()
        if self.cri_pix:
            # Multi-stage and multi-scale networks are published with losses on every output.
            every = getattr(self.cri_pix, 'all_outputs', False) and not isinstance(outputs, Tensor)
            losses['l_pix'] = self.cri_pix([part.float() for part in outputs] if every else output, gt)
        if self.cri_perceptual:
            for name, loss in zip(('l_percep', 'l_style'), self.cri_perceptual(output, gt)):
                if loss is not None:
                    losses[name] = loss
        return losses

    def optimize_parameters(self, current_iter: int) -> None:
        self.optimizer_g.zero_grad()
        total: dict[str, Tensor] = OrderedDict()
        parts = list(zip(self.lq.chunk(self.accumulate), self.gt.chunk(self.accumulate)))
        for i, (lq, gt) in enumerate(parts):
            share = len(lq) / len(self.lq)
            last = i == len(parts) - 1
            # gradients are exchanged between processes once, with the last part
            with nullcontext() if last or not self.opt['dist'] else self.net_g.no_sync():
                losses = {name: share * loss for name, loss in self.losses(lq, gt).items()}
                sum(losses.values()).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach()
        norm = nn.utils.clip_grad_norm_(self._trained_parameters(), self.grad_clip or float('inf'))
        self.log_dict = self.reduce_loss_dict(total)
        # The loss by itself: the L1 loss has a gradient of zero where its target is not a number.
        if not torch.isfinite(norm) or not all(math.isfinite(value) for value in self.log_dict.values()):
            raise InputError(f'Training stopped at iteration {current_iter}, before the update: loss or gradient is not finite '
                             f'({self._loss_text()}); {self._last_checkpoint()} Lower the learning rate or set train: '
                             'grad_clip.')
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        if self._stop_agreed():
            self._save_and_stop(current_iter)

    def model_ema(self, decay: float = 0.999) -> None:
        """Average the parameters; copy buffers, for example batch-norm statistics."""
        net, ema = self.get_bare_model(self.net_g), self.net_g_ema
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
        self._copy_buffers_to_ema()

    def _copy_buffers_to_ema(self) -> None:
        if self.ema_decay > 0:
            for target, source in zip(self.net_g_ema.buffers(), self.get_bare_model(self.net_g).buffers()):
                target.copy_(source)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != 'float32')

    def _trained_parameters(self) -> Iterator[nn.Parameter]:
        return (p for group in self.optimizer_g.param_groups for p in group['params'])

    def _loss_text(self) -> str:
        return ', '.join(f'{name} {value:.4g}' for name, value in self.log_dict.items())

    def _last_checkpoint(self) -> str:
        states = self.opt['path']['training_states']
        iterations = [int(f[:-6]) for f in os.listdir(states) if f[:-6].isdigit()] if os.path.isdir(states) else []
        return f'the checkpoint of iteration {max(iterations)} is intact.' if iterations else 'there was no checkpoint yet.'

    # ---------------------------------------------------------------- stopping and saving

    def _request_stop(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once
        self.stop_requested = True

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop; all get the same answer, else one would wait for the others for ever."""
        if not self.opt['dist']:
            return self.stop_requested
        requested = torch.tensor(float(self.stop_requested), device=self.device)
        dist.all_reduce(requested, dist.ReduceOp.MAX)
        return requested.item() > 0

    def before_validating_image(self, current_iter: int | str) -> None:
        if self.stop_requested and not self.opt['dist']:
            # The last validation counts one iteration more than there were.
            self._save_and_stop(min(int(current_iter), int(self.opt['train']['total_iter'])))

    def _save_and_stop(self, current_iter: int) -> None:
        per_epoch = self.opt.get('iterations_per_epoch') or current_iter
        self.save((current_iter - 1) // per_epoch, current_iter)
        if self.opt['dist']:
            dist.barrier()  # torchrun ends the others as soon as one process has ended
        raise KeyboardInterrupt(f'Stopped and saved at iteration {current_iter}; continue with --auto_resume.')

    def checkpoint_metadata(self) -> dict[str, Any]:
        """What a checkpoint needs besides weights to be restored with: plain values only."""
        return {'format': 1, 'network': self.network_options}

    @master_only
    def save_network(self, net: nn.Module | list[nn.Module], net_label: str, current_iter: int,
                     param_key: str | list[str] = 'params') -> None:
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        name = 'latest' if current_iter == -1 else current_iter
        if not all(parameter.isfinite().all() for n in nets for parameter in n.parameters()):
            raise InputError(f'Training stopped at iteration {name}: the update made weights that are not finite, which were '
                             f'not saved; {self._last_checkpoint()} Lower the learning rate or set train: grad_clip.')
        content: dict[str, Any] = {
            key: {name: value.detach().cpu() for name, value in self.get_bare_model(n).state_dict().items()}
            for n, key in zip(nets, keys)
        }
        content[METADATA_KEY] = {**self.checkpoint_metadata(), 'iteration': current_iter}
        path = os.path.join(self.opt['path']['models'], f'{net_label}_{name}.pth')
        write_atomically(path, lambda temporary: torch.save(content, temporary))

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        if current_iter == -1:  # the final weights need no state
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
        }
        path = os.path.join(self.opt['path']['training_states'], f'{current_iter}.state')
        write_atomically(path, lambda temporary: torch.save(state, temporary))

    # ---------------------------------------------------------------- restoring

    def restorer(self) -> Restorer:
        """The path that validation shares with the command line and Python, over the averaged weights if there are any."""
        val = self.opt.get('val') or {}
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        return Restorer(net, precision=val.get('precision', 'float32'), tile=val.get('tile', 'auto'))

    def restorations(self) -> dict[str, Tensor]:
        """Named results for the image in ``self.lq``, (1, 3, H, W) in [0, 1]; metrics of '' keep their plain names."""
        return {'': self.restorer().restore(self.lq[0], OperatingPoint()).image[None]}

    def test(self) -> None:
        self.output = list(self.restorations().values())[-1]
