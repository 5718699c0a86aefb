"""LatentModel: trains and validates networks on Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.losses import build_loss
from torch import Tensor

from ..archs.build import arch_class
from ..errors import InputError
from ..models.sampling_model import SamplingModel


class LatentModel(SamplingModel):
    """Networks that diffuse latents (:class:`~stochastic_refine.latent.latent_net.LatentNet`).

    Keys of ``train:``, besides RestorationModel's:
        NAME_opt: The loss of each pair of prediction and target that the network gives, ``noise_opt`` for all of them and
            ``latent_opt`` for DeblurDiff; the published one by default, with weight 1.

    Overridden: the losses. Inherited: everything else.
    """

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        known = cls.losses_of(opt)
        for key, options in opt['train'].items() if opt['is_train'] else ():
            if key.endswith('_opt') and options and key.removesuffix('_opt') not in known:
                raise InputError(f"train: {key} has no meaning for {opt['network_g']['type']}, whose losses are "
                                 f"{', '.join(f'{name}_opt' for name in known)}; rename or remove it.")
        if (opt.get('val') or {}).get('grids'):
            raise InputError('val: grids has no meaning for a network that diffuses latents; its windows are network_g: '
                             'attention_window, and tile cuts the image.')
        if opt['is_train'] and (size := opt['datasets']['train'].get('gt_size') or 8) % 8:
            raise InputError(f'datasets: train: gt_size must be a multiple of 8, the pixels of a latent one, got {size}.')
        super().check_options(opt)

    @classmethod
    def losses_of(cls, opt: dict[str, Any]) -> Mapping[str, str]:
        """The names of the network's losses, and the type of each; an InputError if it has none."""
        cls.rules(opt)  # it samples
        losses = getattr(arch_class(opt['network_g']['type']), 'losses', None)
        if losses is None:
            raise InputError(f"network_g: {opt['network_g']['type']} does not diffuse latents, and model_type {cls.__name__} "
                             'is for networks that do; choose StochasticRefineModel or RestorationModel.')
        return losses

    @classmethod
    def check_losses(cls, train_opt: dict[str, Any]) -> None:
        super().check_losses({**train_opt, 'pixel_opt': {'type': 'MSELoss'}})  # there always is one

    def init_training_settings(self) -> None:
        super().init_training_settings()
        self.criteria = {
            name: build_loss(self.opt['train'].get(f'{name}_opt') or {'type': kind, 'loss_weight': 1.0, 'reduction': 'mean'})
            for name, kind in self.losses_of(self.opt).items()}

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            pairs = self.net_g(lq, gt=gt)
        return {f'l_{name}': self.criteria[name](prediction.float(), target) for name, (prediction, target) in pairs.items()}
