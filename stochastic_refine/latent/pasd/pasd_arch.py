"""PASD (Yang et al., ECCV 2024): Stable Diffusion 1.5 whose decoder attends to each pixel of a ControlNet's maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.build import arch
from ...diffusion import SampleNoise, to_signed
from ..base_weights import SD15
from ..controlnet.controlnet_arch import add_control
from ..extra import require
from ..latent_net import LatentNet
from ..stable_diffusion import SCALE, controls
from .hint_encoder import HintEncoder
from .pixel_attention import LightPixelAttention, PixelAttention, predict_noise

#: The step whose noise the blurred image's latent is under when sampling starts.
_ADDED_NOISE_LEVEL = 900
#: Predicted images, from 1/2 of the size to 1/8.
_IMAGES = ('half', 'quarter', 'eighth')


class PixelAwareUNet(nn.Module):
    """A frozen U-Net, a ControlNet that reads the image, and the attention between them."""

    #: What sides of latents must be a multiple of, for tiles.
    size_multiple = 8

    def __init__(self, unet: nn.Module, control: nn.Module, attention: PixelAttention) -> None:
        super().__init__()
        self.unet = unet
        self.control = control
        self.attention = attention

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The predicted noise, (B, 4, h, w).

        Args:
            x: Noisy latent and, for each of its pixels, those of the image, [0, 1], (B, 196, h, w).
            t: Steps, (B,).
            context: The text's tokens, (1 or B, 77, C).
        """
        noisy, image = x[:, :4], F.pixel_shuffle(x[:, 4:], SCALE)
        added = controls(self.control, noisy, t, context, image)
        return predict_noise(self.unet, self.attention, noisy, t, context, added)


@arch
class PASD(LatentNet):
    """See the module's docstring.

    Args:
        light: An attention more in the text's transformers, as in ``pasd_light``, in place of transformers of its own.
        rrdb: Two RRDB blocks in what reads the image, as in the variants ``*_rrdb``.
        **base: Of :class:`~stochastic_refine.latent.latent_net.LatentNet`; ``attention_window`` cannot be given.
    """

    version: ClassVar = SD15
    losses: ClassVar = {'noise': 'MSELoss', **dict.fromkeys(_IMAGES, 'L1Loss')}
    seen_as: ClassVar = 'pixels'
    starts: ClassVar = ('blurred', 'noise')
    default_steps: ClassVar = 20

    def __init__(self, light: bool = False, rrdb: bool = False, **base: Any) -> None:
        super().__init__(**base)
        if self.savings['attention_window'] is not None:
            raise ValueError('attention_window means nothing to PASD, which attends to whole maps of its ControlNet; leave it '
                             'out, and cut large images by tile.')
        self.controlnet = add_control(self, 4)
        self.controlnet.controlnet_cond_embedding = HintEncoder(self.controlnet.conv_in.out_channels, rrdb=rrdb)
        channels = [conv.out_channels for conv in self.controlnet.controlnet_down_blocks]
        self.attention = (LightPixelAttention if light else PixelAttention)(self.base.unet, channels)
        self.complete(PixelAwareUNet(self.base.unet, self.controlnet, self.attention))

    def start_image(self, lq: Tensor, point: Any) -> tuple[Tensor, float] | None:
        return None if point.start == 'noise' else (lq, self.schedule.alpha_bars[_ADDED_NOISE_LEVEL].item())

    def sample(self, denoise: Callable[[Tensor, float], Tensor], state: Tensor, steps: int, noise: SampleNoise) -> Tensor:
        """By UniPC (Zhao et al., 2023), which adds no noise."""
        sampler = require('diffusers').UniPCMultistepScheduler(self.schedule.steps, trained_betas=self.schedule.betas.tolist(),
                                                               steps_offset=1)
        sampler.set_timesteps(steps, device=state.device)
        for t in sampler.timesteps:
            state = sampler.step(denoise(state, t.item()), t, state, return_dict=False)[0]
        return state

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | dict[str, tuple[Tensor, Tensor]]:
        """As of every :class:`~stochastic_refine.latent.latent_net.LatentNet`; in training also the predicted images, and the
        sharp one at their sizes, [-1, 1]."""
        result = super().forward(lq, gt)
        if gt is not None:
            images = self.controlnet.controlnet_cond_embedding.images(lq)
            result.update({name: (image, F.interpolate(to_signed(gt), image.shape[-2:], mode='bilinear', antialias=True))
                           for name, image in zip(_IMAGES, images)})
        return result
