"""DiffBIR (Lin et al., ECCV 2024): Stable Diffusion 2.1 steered by the latent of what another network made of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ...archs.build import arch
from ...archs.predict_refine_arch import build_part
from ...diffusion import forward_marginal, r0_from_v, to_signed, v_target
from ..base_weights import SD21_V
from ..controlnet.controlnet_arch import ControlledUNet, add_control
from ..images import low_frequencies
from ..latent_net import LatentNet

_shared: WeakValueDictionary[tuple[str, str], nn.Module] = WeakValueDictionary()


def _named(weights: str) -> nn.Module:
    """The first stage of these weights; the same one for all networks that want it."""
    key = (weights, torch.empty(0).device.type)
    first = _shared.get(key)
    if first is None:
        first = _shared[key] = _frozen({'pretrained': weights})
    return first


def _frozen(options: Mapping[str, Any]) -> nn.Module:
    return build_part(options, 'stage1').requires_grad_(False).eval()


@arch
class DiffBIR(LatentNet):
    """DiffBIR 1 and 2: a first stage restores; then IRControlNet, which sees the noisy latent and that of the first stage's
    result, steers the U-Net.

    Args:
        stage1: The first stage, any network that restores, ours included; frozen. Name or file of its weights, which tell its
            type: it is then in no checkpoint of this network's. Or its options, ``{type: ..., pretrained: ...}``, and it is.
            None: the blurred image's own latent is seen.
        noise_augmentation: In training noise is added to the latent that is seen, as at a random one of so many first steps; 0
            for none. Published: 200 for DiffBIR 2.1.
        **base: Of :class:`~stochastic_refine.latent.latent_net.LatentNet`.
    """

    seen_as: ClassVar = 'mode'

    def __init__(self, stage1: str | Mapping[str, Any] | None = None, noise_augmentation: int = 0, **base: Any) -> None:
        super().__init__(**base)
        if not 0 <= noise_augmentation <= self.schedule.steps:
            raise ValueError(f'noise_augmentation must be from 0 to {self.schedule.steps} steps, got {noise_augmentation}.')
        self.noise_augmentation = noise_augmentation
        if isinstance(stage1, str):
            self.share(first=_named(stage1))
        elif stage1 is not None:
            self.first = _frozen(stage1)
        self.controlnet = add_control(self, 8)
        self.complete(ControlledUNet(self.base.unet, self.controlnet))

    def train(self, mode: bool = True) -> DiffBIR:
        """Switch mode as usual, except that the first stage stays in evaluation mode."""
        super().train(mode)
        if self.first is not None:
            self.first.eval()
        return self

    def seen(self, lq: Tensor, initial: Tensor | None) -> Tensor:
        return to_signed(lq if initial is None else initial)

    def finished(self, image: Tensor, like: Tensor) -> Tensor:
        """With the low frequencies of the first stage's result."""
        return image - low_frequencies(image) + low_frequencies(like)

    def targets(self, noisy: Tensor, blurred: Tensor, sharp: Tensor, noise: Tensor, t: Tensor,
                context: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        if self.noise_augmentation:
            at = torch.randint(self.noise_augmentation, (len(blurred), ), device='cpu')
            blurred = forward_marginal(blurred, torch.randn_like(blurred), self.alpha_bars(at, blurred))
        return super().targets(noisy, blurred, sharp, noise, t, context)


@arch
class DiffBIRv21(DiffBIR):
    """DiffBIR 2.1: the base, and so the whole, predicts v, and nothing of the signal is left at the last step."""

    version: ClassVar = SD21_V
    schedule: ClassVar = DiffBIR.schedule.without_signal()
    losses: ClassVar = {'velocity': 'MSELoss'}
    starts: ClassVar = ('noise', )
    r0_from = staticmethod(r0_from_v)

    def targets(self, noisy: Tensor, blurred: Tensor, sharp: Tensor, noise: Tensor, t: Tensor,
                context: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        velocity, _ = super().targets(noisy, blurred, sharp, noise, t, context)['noise']
        return {'velocity': (velocity, v_target(sharp, noise, self.alpha_bars(t, sharp)))}
