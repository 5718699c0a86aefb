"""HI-Diff's two stages of training: a prior of blurred and sharp image that helps to restore, then its diffusion."""

from __future__ import annotations

from typing import Any

import torch
from basicsr.losses import build_loss
from torch import Tensor, nn

from ..archs.build import build_arch
from ..errors import InputError
from .restoration_model import RestorationModel
from .sampling_model import SamplingModel


def _check_encoder(opt: dict[str, Any]) -> None:
    """Raise an InputError unless ``network_le`` encodes blurred and sharp image together."""
    if (opt.get('network_le') or {}).get('in_chans') != 6:
        raise InputError('network_le: a training of HI-Diff needs an encoder of blurred and sharp image together; give '
                         '{type: HIDiffEncoder, in_chans: 6}.')


class _WithEncoder(RestorationModel):
    """What both stages have: the encoder ``network_le``, kept in ``net_le``."""

    def build_encoder(self) -> nn.Module:
        """The encoder on its device, with the weights of ``path: pretrain_network_le`` if there are any."""
        net, path = build_arch(self.opt['network_le'], 'network_le').to(self.device), self.opt['path']
        if path.get('pretrain_network_le'):
            self.load_network(net, path['pretrain_network_le'], path.get('strict_load_le', True),
                              path.get('param_key_le', 'params'))
        return net


class HIDiffStage1Model(_WithEncoder):
    """Stage 1: ``network_g`` (HIDiffTransformer) restores with the prior that ``network_le`` (HIDiffEncoder) sees in blurred
    and sharp image; both are trained, by ``pixel_opt``, and saved beside each other, as ``net_g_*.pth`` and ``net_le_*.pth``.

    Validation uses the sharp image too: its scores say what a true prior is worth, and are no network's that restores.

    Overridden: the losses, the named result; the encoder is built, optimised and saved too. Inherited: everything else.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if not self.is_train:
            self.net_le = self.build_encoder().eval()

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        _check_encoder(opt)
        if opt['is_train'] and opt['train'].get('ema_decay'):
            raise InputError('train: ema_decay has no meaning in the first stage of HI-Diff, whose two networks belong to each '
                             'other as they are; set it to 0.')
        super().check_options(opt)

    def init_training_settings(self) -> None:
        self.net_le = self.model_to_device(self.build_encoder().train())
        super().init_training_settings()

    def trained_networks(self) -> list[nn.Module]:
        return [self.net_g, self.net_le]

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            output = self.net_g(lq, self.net_le(lq, gt))
        return self.content_losses(output, gt)

    def save(self, epoch: int, current_iter: int) -> None:
        self.save_network(self.net_le, 'net_le', current_iter)
        super().save(epoch, current_iter)

    def restorations(self) -> dict[str, Tensor]:
        nets = [self.get_bare_model(net) for net in (self.net_le, self.net_g)]
        training = [net.training for net in nets]
        encoder, net = (each.eval() for each in nets)
        with torch.inference_mode():
            restored = net(self.lq, encoder(self.lq, self.gt)).float().clamp(0, 1)
        for each, mode in zip(nets, training):
            each.train(mode)
        return {'': restored}


class HIDiffStage2Model(_WithEncoder, SamplingModel):
    """Stage 2: all of ``network_g`` (HIDiff) is trained through all steps of the prior's diffusion, towards the prior that the
    first stage's ``network_le``, frozen and in no checkpoint, sees in blurred and sharp image.

    Keys of ``train:``, besides RestorationModel's:
        prior_opt: The loss between the prior that is restored with and that of ``network_le``.

    Overridden: the losses. Inherited: everything else.
    """

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        if opt['is_train']:
            _check_encoder(opt)
            if not opt['train'].get('prior_opt'):
                raise InputError('train: the second stage of HI-Diff needs prior_opt, the loss on the prior, for example '
                                 '{type: L1Loss, loss_weight: 1.0, reduction: mean}.')
            if not opt['path'].get('pretrain_network_le'):
                raise InputError('path: the second stage of HI-Diff needs pretrain_network_le, the net_le_*.pth of the first; '
                                 'train that with options/hidiff/train_gopro_stage1.yml.')
            if 'network_le' not in (opt['path'].get('ignore_resume_networks') or []):
                raise InputError('path: network_le stays as it is and is in no checkpoint, so a resumed training must not look '
                                 'for it there; set ignore_resume_networks: [network_le].')
        super().check_options(opt)

    def init_training_settings(self) -> None:
        super().init_training_settings()
        self.net_le = self.build_encoder().requires_grad_(False).eval()
        self.cri_prior = build_loss(self.opt['train']['prior_opt']).to(self.device)

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            with torch.no_grad():
                prior = self.net_le(lq, gt).float()
            output = self.net_g(lq, prior=prior)
        return {**self.content_losses(output['image'], gt), 'l_prior': self.cri_prior(output['prior'], prior)}
