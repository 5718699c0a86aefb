"""RestorationModel: BasicSR's SRModel with what long trainings of restoration networks need."""

from __future__ import annotations

import math
import signal
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..archs.build import check_arch_options, without_pretrained
from ..archs.memory_format import placed
from ..archs.predict_refine_arch import final_output
from ..archs.pretrained import check_weights, complete_networks, read_weights
from ..checkpoints.weights_folder import find_weights
from ..data.random_streams import seed_iteration, stream_seed
from ..errors import InputError
from ..inference.operating_point import OperatingPoint, check_tiles_and_windows
from ..inference.restorer import Restorer
from ..losses.perceptual_loss import build_perceptual_loss
from ..processes import refuse_several_gpus
from ..values import attempt, nearest
from .activation_checkpointing import check_setting, checkpoint_activations
from .lr_scheduler import build_schedulers
from .progressive import ProgressivePatches
from .saving import SavedTraining
from .validation import ShardedValidation

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


class RestorationModel(SavedTraining, ShardedValidation, SRModel):
    """Trains and validates any network that maps a degraded image to a restored one.

    On top of ``SRModel`` (keys of ``train:``):
        precision: ``float32`` (default) or ``bfloat16`` autocast; weights, losses and EMA stay in float32.
        accumulate: Split each loaded batch into this many parts, whose gradients are added up: one optimizer step per
            iteration and the same result as in one go, with the memory of a part.
        activation_checkpointing: Class names of blocks that keep only their inputs for the backward pass, which computes the
            rest again; ``true`` for the network's own repeated blocks. Same gradients, less memory, more time.
        grad_clip: Largest norm of the gradient.
        compile: Compile the network with torch.compile.
        optim_g.type: Any optimizer of ``torch.optim``.
        scheduler.type: Any schedule of ``lr_scheduler.SCHEDULERS``.
    With ``gt_sizes``, ``mini_batch_sizes`` and ``iters`` in ``datasets: train:``, each iteration takes the part of the loaded
    batch that :class:`ProgressivePatches` says. With ``grids: true`` and ``crop_size`` in ``val:``, images are restored window
    by window.

    Equal seeds give equal bits, and so does a resumed training and an unbroken one: random numbers depend on seed and iteration
    alone, and an iteration, with all its parts, happens whole or not at all. That wants the same machine, number of threads and
    of processes, and deterministic operations: PyTorch's are on the CPU, several on a GPU are not. Resuming in three or more
    processes also adds up gradients in another order, since DistributedDataParallel fills its first buckets anew.

    With ``sharded_checkpoints: true`` in ``logger:``, checkpoints are folders to which each process writes its share.

    A loss or gradient that is not finite stops the training before it can spoil weights or checkpoints. Checkpoints are
    written atomically and carry the network's options. Ctrl-C finishes the iteration (on all processes the same one), or the
    image under validation, saves and stops.

    Overridden: network loading, device placement (CPU and gloo too), optimizers, schedulers, EMA (buffers too), the step,
    stopping and saving (:class:`SavedTraining`), validation (:class:`ShardedValidation`). Inherited: losses, logging.
    """

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        """Check this model's own options, before anything is created.

        Raises:
            InputError: At the first that it would fail over, or pass over.
        """
        refuse_several_gpus(opt)  # by BasicSR's own launcher, and forks', nobody else does
        for where, block in (('train', opt.get('train') or {}), ('val', opt.get('val') or {})):
            if block.get('precision', 'float32') not in PRECISIONS:
                raise InputError(f"{where}: precision must be float32 or bfloat16, got '{block['precision']}'.")
        check_tiles_and_windows(opt.get('val') or {})
        if opt['is_train']:
            check_setting(opt['train'].get('activation_checkpointing'))
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
        opt.update(complete_networks(opt))
        check_arch_options(opt['network_g'], 'network_g')
        self.check_options(opt)
        self.network_options = {key.replace('network_', 'net_'): without_pretrained(value)
                                for key, value in opt.items() if key.startswith('network_')}
        super().__init__(opt)

    # ---------------------------------------------------------------- set-up

    def init_training_settings(self) -> None:
        train_opt = self.opt['train']
        self.precision = train_opt.get('precision', 'float32')
        self.accumulate = train_opt.get('accumulate', 1)
        self.grad_clip = train_opt.get('grad_clip')
        self.progressive = ProgressivePatches.from_options(self.opt['datasets']['train'])
        pixel, perceptual = train_opt.get('pixel_opt'), train_opt.pop('perceptual_opt', None)
        # SRModel does not start without a loss, and fails over some perceptual ones
        train_opt['pixel_opt'] = pixel or {'type': 'L1Loss', 'loss_weight': 0.0, 'reduction': 'mean'}
        super().init_training_settings()
        if self.ema_decay > 0:  # BasicSR builds it past model_to_device
            self.net_g_ema = placed(self.net_g_ema, self.device)
        self.cri_pix = self.cri_pix if pixel else None
        if perceptual:
            self.cri_perceptual = build_perceptual_loss(perceptual).to(self.device)
        self._copy_buffers_to_ema()
        if train_opt.get('activation_checkpointing'):
            blocks = checkpoint_activations(self.get_bare_model(self.net_g), train_opt['activation_checkpointing'])
            get_root_logger().info(f'Blocks whose activations are computed again: {dict(blocks)}.')
        if train_opt.get('compile'):
            self.get_bare_model(self.net_g).compile()
        signal.signal(signal.SIGINT, self._request_stop)

    def model_to_device(self, net: nn.Module, **options: Any) -> nn.Module:
        """Place a network; ``options`` are DistributedDataParallel's."""
        net = placed(net, self.device)
        if self.opt['dist']:
            device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            return DistributedDataParallel(net, device_ids=device_ids, **{
                'find_unused_parameters': self.opt.get('find_unused_parameters', False), **options})
        return net

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = 'params') -> None:
        """Load weights by name or from a file, in any format that is known, without running code from it."""
        net = self.get_bare_model(net)
        checkpoint = read_weights(find_weights(load_path), prefer=param_key)
        get_root_logger().info(f'Loading {type(net).__name__} from {load_path}.')
        if strict:
            check_weights(net, checkpoint, load_path)
            net.load_state_dict(checkpoint.params)
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
        where = f"train: optim_{'d' if self.optimizers else 'g'}"  # the generator's is made first
        if optim_type not in known:
            raise InputError(f"{where} has an unknown type '{optim_type}'; {nearest(str(optim_type), known)}")
        return attempt(where, getattr(torch.optim, optim_type), params, lr=lr, **kwargs)

    def trained_networks(self) -> list[nn.Module]:
        """Those that the optimizer of ``optim_g`` has."""
        return [self.net_g]

    def setup_optimizers(self) -> None:
        options = dict(self.opt['train']['optim_g'])
        parameters = [parameter for net in self.trained_networks() for parameter in net.parameters()]
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        frozen = len(parameters) - len(trained)
        if frozen:
            get_root_logger().info(f'{frozen} of {frozen + len(trained)} parameters are frozen.')
        self.optimizer_g = self.get_optimizer(options.pop('type'), trained, **options)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        self.schedulers = build_schedulers(self.opt['train']['scheduler'], self.optimizers)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """One step of the schedules, which a linear warm-up hides but does not change.

        Most schedules compute a rate from the one before. They would go on from the warm-up's rate, for ever too low.
        """
        for scheduler in self.schedulers:
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr()):
                group['lr'] = rate
        super().update_learning_rate(current_iter, warmup_iter)

    # ---------------------------------------------------------------- one iteration

    @property
    def batch(self) -> dict[str, Tensor]:
        """What :meth:`losses` gets, (B, C, H, W) each, by its attribute."""
        return {'lq': self.lq, 'gt': self.gt}

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """The weighted losses of one part of a batch; their sum is minimised."""
        with self._autocast():
            outputs = self.net_g(lq)
        return self.content_losses(outputs, gt)

    def content_losses(self, outputs: Tensor | Sequence[Tensor], gt: Tensor) -> dict[str, Tensor]:
        """The losses between what the network gave and the sharp images."""
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
        # so that neither validation nor an interruption changes what is drawn
        seed_iteration(stream_seed('iteration', self.opt['manual_seed'], self.opt['rank'], current_iter))
        if self.progressive:
            vars(self).update(zip(self.batch, self.progressive.cut(list(self.batch.values()), current_iter)))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.log_dict = self.reduce_loss_dict(self.backward(current_iter))
        norms = [nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group['params']],
                                          optimizer is self.optimizer_g and self.grad_clip or math.inf)
                 for optimizer in self.optimizers]
        # The loss by itself: the L1 loss has a gradient of zero where its target is not a number.
        if not all(math.isfinite(value) for value in [*norms, *self.log_dict.values()]):
            raise InputError(f'Training stopped at iteration {current_iter}, before the update: loss or gradient is not finite '
                             f'({self._loss_text()}); {self._last_checkpoint()} Lower the learning rate or set train: '
                             'grad_clip.')
        for optimizer in self.optimizers:
            optimizer.step()  # passes over parameters without a gradient
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        self.finished_iter = current_iter
        self.stop_if_agreed()

    def backward(self, current_iter: int) -> dict[str, Tensor]:
        """Fill the gradients for this iteration's update; the losses, for the log."""
        return self.backward_by_parts(self.net_g, self.losses, *self.batch.values())

    def backward_by_parts(self, net: nn.Module, losses_of: Callable[..., dict[str, Tensor]],
                          *batch: Tensor) -> dict[str, Tensor]:
        """Add up the gradients of ``losses_of(*part)`` over the parts of a batch; the losses of the whole, without graphs.

        Args:
            net: The network, as wrapped for several processes, that gets the gradients.
            losses_of: Named losses, each a mean over its part; what has no gradient is only logged.
            batch: Tensors whose first dimension is the batch.
        """
        total: dict[str, Tensor] = OrderedDict()
        parts = list(zip(*(tensor.chunk(self.accumulate) for tensor in batch)))
        for i, part in enumerate(parts):
            share = len(part[0]) / len(batch[0])
            last = i == len(parts) - 1
            # gradients are exchanged between processes once, with the last part
            with nullcontext() if last or not self.opt['dist'] else net.no_sync():
                losses = {name: share * loss for name, loss in losses_of(*part).items()}
                sum(losses.values()).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach()
        return total

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

    def _loss_text(self) -> str:
        return ', '.join(f'{name} {value:.4g}' for name, value in self.log_dict.items())

    # ---------------------------------------------------------------- restoring

    def restorer(self) -> Restorer:
        """The path that validation shares with the command line and Python, over the averaged weights if there are any."""
        val = self.opt.get('val') or {}
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        return Restorer(net, precision=val.get('precision', 'float32'), tile=val.get('tile'),
                        window=val['crop_size'] if val.get('grids') else None)

    def restorations(self) -> dict[str, Tensor]:
        """Named results for the image in ``self.lq``, (1, 3, H, W) in [0, 1]; metrics of '' keep their plain names."""
        return {'': self.restorer().restore(self.lq[0], OperatingPoint()).image[None]}

    def test(self) -> None:
        self.output = list(self.restorations().values())[-1]
