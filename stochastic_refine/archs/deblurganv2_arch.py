"""Generator of DeblurGAN-v2: "Deblurring (Orders-of-Magnitude) Faster and Better" (Kupyn et al., ICCV 2019).

Provenance: written from the paper and from facts about the published implementation (VITA-Group/DeblurGANv2, commit
c16bd9f): parameter names and shapes, padding, normalisation at test time. Released checkpoints hold the state dict under
``model`` with the prefix ``module.``; without that prefix they load strictly, with no key map. One deviation: images are in
[0, 1] at both ends instead of [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .deblurganv2_backbones import (
    INCEPTION_CHANNELS,
    MOBILENET_CHANNELS,
    InceptionResNetV2,
    inception_stages,
    mobilenet_stages,
    mobilenet_v2_features,
)

#: Reflection padding (left, right, top, bottom) after each lateral convolution that undoes the Inception stages' shrinking.
INCEPTION_PADDING = ((0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
NO_PADDING = ((0, 0, 0, 0),) * 5


def _up(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode='nearest')


def _conv_norm(channels: int, out_channels: int) -> nn.Sequential:
    norm = nn.InstanceNorm2d(out_channels, affine=False, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1), norm, nn.ReLU(inplace=True))


class FeaturePyramid(nn.Module):
    """Top-down feature pyramid on a backbone of five stages.

    Args:
        backbone: ``mobilenet`` or ``inception``.
        width: Channels of the pyramid; the finest map has half of them.

    Shape:
        (B, 3, H, W) to five maps, at sizes 1/2 (``width // 2`` channels), 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, backbone: str, width: int) -> None:
        super().__init__()
        if backbone == 'inception':
            self.inception = InceptionResNetV2()
            stages, channels, self.padding = inception_stages(self.inception), INCEPTION_CHANNELS, INCEPTION_PADDING
        else:
            self.features = mobilenet_v2_features()
            stages, channels, self.padding = mobilenet_stages(self.features), MOBILENET_CHANNELS, NO_PADDING
        # The stages share their parameters with the backbone, and checkpoints hold both names.
        for level, stage in enumerate(stages):
            self.add_module(f'enc{level}', stage)
            self.add_module(f'lateral{level}', nn.Conv2d(channels[level], width if level else width // 2, 1, bias=False))
        self.td1, self.td2, self.td3 = (_conv_norm(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        laterals = []
        for level, padding in enumerate(self.padding):
            x = self.get_submodule(f'enc{level}')(x)
            lateral = self.get_submodule(f'lateral{level}')(x)
            laterals.append(F.pad(lateral, padding, mode='reflect') if any(padding) else lateral)
        map4 = laterals[4]
        map3 = self.td1(laterals[3] + _up(map4, 2))
        map2 = self.td2(laterals[2] + _up(map3, 2))
        map1 = self.td3(laterals[1] + _up(map2, 2))
        return [laterals[0], map1, map2, map3, map4]


class Head(nn.Module):
    """Two convolutions without bias, each with ReLU."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.block0 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        self.block1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.block1(self.block0(x).relu()).relu()


@arch
class DeblurGANv2(nn.Module):
    """DeblurGAN-v2's generator.

    Args:
        backbone: ``mobilenet`` (3.3 M parameters) or ``inception`` (60.9 M).
        image_statistics: Evaluate as the authors score it: normalise by statistics of the input instead of the running ones,
            each image of a batch by itself (the backbone's BatchNorm would mix them), and pad to the next multiple of 32,
            which adds a whole 32 to a side that is one already.

    Shape:
        (B, 3, H, W) in [0, 1], any H and W, to the same, clamped. As published, the missing pixels at the right and bottom are
        zero after normalisation to [-1, 1], hence mid-grey; to multiples of 32 and at least 64 (MobileNet) or 128 (Inception).
    """

    size_multiple = 32

    def __init__(self, backbone: str = 'mobilenet', image_statistics: bool = False) -> None:
        super().__init__()
        if backbone not in ('mobilenet', 'inception'):
            raise ValueError(f"backbone is '{backbone}'; it must be mobilenet or inception.")
        width = 128 if backbone == 'inception' else 64
        self.least_side = 128 if backbone == 'inception' else 64
        self.image_statistics = image_statistics
        self.fpn = FeaturePyramid(backbone, 2 * width)
        self.head1, self.head2, self.head3, self.head4 = (Head(2 * width, width) for _ in range(4))
        self.smooth = _conv_norm(4 * width, width)
        self.smooth2 = _conv_norm(width, width // 2)
        self.final = nn.Conv2d(width // 2, 3, 3, padding=1)

    def train(self, mode: bool = True) -> DeblurGANv2:
        """Switch mode as usual, except that with ``image_statistics`` the norms keep to the input's statistics."""
        super().train(mode)
        if self.image_statistics:
            for norm in self.modules():
                if isinstance(norm, (nn.BatchNorm2d, nn.InstanceNorm2d)):
                    # Evaluation leaves the buffers alone: BatchNorm minds the flag, InstanceNorm only the momentum.
                    norm.train()
                    norm.track_running_stats = mode
                    norm.momentum = 0.1 if mode else 0.0
        return self

    def forward(self, x: Tensor) -> Tensor:
        as_scored = self.image_statistics and not self.training
        if as_scored and len(x) > 1:
            return torch.cat([self.forward(image) for image in x.split(1)])
        height, width = x.shape[-2:]
        right, bottom = (max(side + (-side % self.size_multiple or self.size_multiple * as_scored), self.least_side) - side
                         for side in (width, height))
        signed = F.pad(x * 2 - 1, (0, right, 0, bottom))
        map0, map1, map2, map3, map4 = self.fpn(signed)
        heads = [_up(self.head4(map4), 8), _up(self.head3(map3), 4), _up(self.head2(map2), 2), self.head1(map1)]
        h = self.smooth(torch.cat(heads, dim=1))
        h = self.smooth2(_up(h, 2) + map0)
        output = torch.tanh(self.final(_up(h, 2))) + signed
        return ((output.clamp(-1, 1) + 1) / 2)[..., :height, :width]
