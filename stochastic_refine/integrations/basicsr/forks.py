"""What the files of ``install-into`` call inside a fork of BasicSR without registries: NAFNet, HINet, Restormer and their kind.

Such a fork finds networks and models by scanning its folders for ``*_arch.py`` and ``*_model.py``, and trains by a model class
of its own, with losses between images alone. Nothing here imports the fork before it has done so itself.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...archs import ARCHS, build
from ...archs.build import without_pretrained
from ...archs.predict_refine_arch import PredictRefineNet
from ...archs.pretrained import complete_options, read_weights
from ...checkpoints import METADATA_KEY
from ...errors import InputError
from ...files import write_atomically
from ...inference.operating_point import operating_points_of
from ...losses.flow_loss import FlowLoss
from ...losses.noise_loss import NoisePredictionLoss
from .install_into import HOST_MODELS

#: The forks' own clipping, of those that clip unless told otherwise.
_CLIP = 0.01


def prepare_fork(package: str | Path) -> None:
    """Supply what a fork lacks, before it is missed: :func:`supply_version`, and without a GPU what its ``train.py`` calls to
    read a training state.

    Args:
        package: The fork's folder ``basicsr``.
    """
    supply_version(package)
    if not torch.cuda.is_available():  # where both can only fail
        torch.cuda.current_device = lambda: 0
        torch.UntypedStorage.cuda = lambda storage, *args, **kwargs: storage


def supply_version(package: str | Path) -> None:
    """Make the module ``basicsr.version`` of a clone that lacks ``version.py``, which its setup writes."""
    package = Path(package)
    if not (package / 'version.py').is_file() and 'basicsr.version' not in sys.modules:
        stated = package.parent / 'VERSION'
        version = types.ModuleType('basicsr.version')
        vars(version).update(__version__=stated.read_text().strip() if stated.is_file() else 'unknown', __gitsha__='unknown')
        sys.modules['basicsr.version'] = version


def network(name: str, folder: str) -> type[nn.Module]:
    """Our network of that name, for a fork's ``getattr(module, name)``.

    Args:
        name: The network's.
        folder: The dotted name of the fork's folder of networks; every name that its own modules have is left to it.

    Raises:
        AttributeError: If the fork has it, or we have not.
    """
    build.own_lookup = lambda part: _own(part, folder)
    if name in ARCHS and _own(name, folder) is None:  # it takes the first module that has the name, in no fixed order
        return ARCHS[name]
    raise AttributeError(f'{folder}.stochastic_refine_arch has no attribute {name!r}')


def _own(name: str, folder: str) -> Any:
    """What one of the fork's own modules has under that name; None if none has."""
    modules = [module for key, module in list(sys.modules.items())
               if key.startswith(f'{folder}.') and not key.endswith('.stochastic_refine_arch')]
    return next((vars(module)[name] for module in modules if name in vars(module)), None)


def fork_model(package: str = 'basicsr.models') -> type:
    """``StochasticRefineModel`` on the model class that the fork at hand has."""
    module = import_module(f'{package}.image_restoration_model')
    host = next(getattr(module, name) for name in HOST_MODELS if hasattr(module, name))  # install-into has seen to it
    return type('StochasticRefineModel', (_NoiseLossModel, host), {'__module__': __name__, '__doc__': _NoiseLossModel.__doc__})


class _NoiseLossModel:
    """Trains ``PredictRefineNet`` by the noise loss on a fork's own model, whose data, optimizers, schedules, log and
    validation stay as they are there.

    Keys of ``train:``, besides the fork's:
        noise_opt, flow_opt: The refiner's loss; by default ``{type: NoisePredictionLoss}``, or ``FlowLoss`` of a flow.
        initial_opt: Optional loss, one of the fork's, on the initial prediction.
        ema_decay: Averaged weights, also in forks that have none of their own; they are validated and saved.
        grad_clip: Largest norm of the gradient; without it the fork's ``use_grad_clip``, 0.01 unless that is false.
    Validation samples as ``network_g: sampling`` says.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        options = complete_options(opt['network_g'], 'network_g')
        if options.get('type') != PredictRefineNet.__name__:
            raise InputError(f"model_type: StochasticRefineModel trains network_g: PredictRefineNet, no {options.get('type')}; "
                             "take the fork's own model for that.")
        self.network_options = without_pretrained(copy.deepcopy(options))
        self.averaged: nn.Module | None = None
        super().__init__(opt)

    # ---------------------------------------------------------------- training

    def init_training_settings(self) -> None:
        train = self.opt['train']
        for key in ('pixel_opt', 'perceptual_opt'):
            if train.get(key):
                raise InputError(f'train: {key} has no meaning for StochasticRefineModel; the loss on the predicted noise is '
                                 'noise_opt, that on the initial prediction initial_opt.')
        initial = train.get('initial_opt')  # the fork does not start without a loss between images
        train['pixel_opt'] = dict(initial or {'type': 'L1Loss', 'loss_weight': 0.0, 'reduction': 'mean'})
        super().init_training_settings()
        self.initial_loss = self.cri_pix if initial else None
        net = self.get_bare_model(self.net_g)
        key, default = ('flow_opt', 'FlowLoss') if net.flow is not None else ('noise_opt', 'NoisePredictionLoss')
        self.refiner_loss = _loss(train.get(key) or {'type': default}).to(self.device)
        self.own_decay = 0 if hasattr(self, 'ema_decay') else train.get('ema_decay', 0)  # some forks average by themselves
        if self.own_decay:
            self.averaged = copy.deepcopy(net).eval().requires_grad_(False)
            weights = self.opt['path'].get('pretrain_network_g')
            if weights:
                self.averaged.load_state_dict(read_weights(weights, prefer='params_ema').params)

    def optimize_parameters(self, current_iter: int, tb_logger: Any = None) -> None:
        train = self.opt['train']
        if train.get('mixup') and hasattr(self, 'mixup_aug'):
            self.mixup_aug()
        self.optimizer_g.zero_grad()
        losses = self.losses(self.net_g(self.lq, gt=self.gt))
        if not all(loss.isfinite() for loss in losses.values()):
            raise InputError(f'Training stopped at iteration {current_iter}, before the update: the loss is not finite; lower '
                             'the learning rate, or go on from an earlier checkpoint.')
        sum(losses.values()).backward()
        clip = train.get('grad_clip') or (_CLIP if train.get('use_grad_clip', True) else math.inf)
        nn.utils.clip_grad_norm_(self.net_g.parameters(), clip)
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(losses)
        if self.averaged is not None:
            self._average()
        elif getattr(self, 'ema_decay', 0) > 0:
            self.model_ema(decay=self.ema_decay)

    def losses(self, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named losses of what the network gives in training; their sum is minimised."""
        if 'noise' in output:
            losses = {'l_noise': self.refiner_loss(output['noise_prediction'], output['noise'], output['noise_level'])}
        else:
            losses = {'l_flow': self.refiner_loss(output['residual_prediction'], output['residual'], output['weight'])}
        if self.initial_loss is not None and output.get('initial') is not None:
            losses['l_initial'] = self.initial_loss(output['initial'], self.gt)
        return losses

    @torch.no_grad()
    def _average(self) -> None:
        net = self.get_bare_model(self.net_g)
        for target, source in zip(self.averaged.parameters(), net.parameters()):
            target.lerp_(source, 1 - self.own_decay)
        for target, source in zip(self.averaged.buffers(), net.buffers()):
            target.copy_(source)

    # ---------------------------------------------------------------- validating and saving

    def test(self, *args: Any, **kwargs: Any) -> None:
        net = self.net_g
        self.net_g = net if self.averaged is None else self.averaged
        try:
            super().test(*args, **kwargs)
        finally:
            self.net_g = net

    def nondist_validation(self, *args: Any, **kwargs: Any) -> Any:
        with _process_group():
            return super().nondist_validation(*args, **kwargs)

    def save_network(self, net: nn.Module | Sequence[nn.Module], net_label: str, current_iter: int,
                     param_key: str | Sequence[str] = 'params') -> None:
        """As BasicSR names it, with what restoring needs besides weights."""
        if self.opt.get('rank', 0) != 0:
            return
        nets = dict(zip(param_key, net)) if isinstance(net, (list, tuple)) else {param_key: net}
        if self.averaged is not None:
            nets['params_ema'] = self.averaged
        bare = {key: self.get_bare_model(each) for key, each in nets.items()}
        content: dict[str, Any] = {key: {name: value.cpu() for name, value in each.state_dict().items()}
                                   for key, each in bare.items()}
        each = next(iter(bare.values()))
        point = operating_points_of({'operating_points': {'sample': each.sampling}}, each.rules)['sample'].as_options()
        content[METADATA_KEY] = {'format': 1, 'network': self.network_options, 'operating_points': {'sample': point},
                                 'iteration': current_iter}
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        write_atomically(os.path.join(self.opt['path']['models'], name), lambda temporary: torch.save(content, temporary))


@contextmanager
def _process_group() -> Iterator[None]:
    """A group of this process alone if there is none: some forks validate through it even then."""
    alone = not dist.is_initialized()
    if alone:
        backend = 'nccl' if torch.cuda.is_available() else 'gloo'
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        if alone:
            dist.destroy_process_group()


def _loss(options: dict[str, Any]) -> nn.Module:
    known = {loss.__name__: loss for loss in (NoisePredictionLoss, FlowLoss)}
    if options.get('type') not in known:
        raise InputError(f"train: noise_opt and flow_opt are of type {' or '.join(known)}, got {options.get('type')}.")
    return known[options['type']](**{key: value for key, value in options.items() if key != 'type'})
