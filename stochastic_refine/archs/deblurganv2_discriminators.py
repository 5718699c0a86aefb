"""Discriminators of DeblurGAN-v2: "Deblurring (Orders-of-Magnitude) Faster and Better" (Kupyn et al., ICCV 2019).

Provenance: written from the paper and from facts about the published implementation (VITA-Group/DeblurGANv2, commit c16bd9f):
parameter names and shapes, padding, normalisation, output sizes. No discriminator was released, so no checkpoint is known to
load; the layouts and outputs are those of the published classes. ``DoubleScaleDiscriminator`` holds the pair that the
publication trains under the name ``double_gan``. All give raw scores: the losses apply what they need.
"""

from __future__ import annotations

from torch import Tensor, nn

from .build import arch


def _conv(in_channels: int, out_channels: int, stride: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 4, stride, padding=2, bias=bias)


def _conv_norm(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    norm = nn.InstanceNorm2d(out_channels, affine=False, track_running_stats=True)
    return [_conv(in_channels, out_channels, stride), norm, nn.LeakyReLU(0.2)]


def _trunk(in_channels: int, widths: list[int]) -> list[nn.Module]:
    """Convolutions that halve the sides, the first without normalisation."""
    layers = [_conv(in_channels, widths[0], 2), nn.LeakyReLU(0.2)]
    for narrow, wide in zip(widths, widths[1:]):
        layers += _conv_norm(narrow, wide, 2)
    return layers


@arch
class NLayerDiscriminator(nn.Module):
    """Convolutions that judge overlapping patches of an image: 70x70 pixels each for 3 layers.

    Args:
        in_channels: Channels of the image.
        ndf: Channels of the first convolution; each of the next three doubles them.
        n_layers: Convolutions that halve the sides; 3 for DeblurGAN-v2's patch part, 5 for its full-image part.

    Shape:
        (B, in_channels, H, W) in [-1, 1] as published, any H and W, to scores (B, 1, h, w).
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f'n_layers must be at least 1, got {n_layers}.')
        widths = [ndf * min(2**layer, 8) for layer in range(n_layers + 1)]
        self.model = nn.Sequential(*_trunk(in_channels, widths[:-1]), *_conv_norm(widths[-2], widths[-1], 1),
                                   _conv(widths[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Tail(nn.Module):
    """Scores (B, 1, H + 2, W + 2) from features (B, C, H, W); unlike the trunk, with BatchNorm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(_conv(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
                                   _conv(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@arch
class MultiScaleDiscriminator(nn.Module):
    """One trunk with scores after its third, fourth and fifth halving.

    Args:
        in_channels: Channels of the image.
        ndf: Channels of the first convolution.

    Shape:
        (B, in_channels, H, W) in [-1, 1] as published, any H and W, to three score maps, finest first.
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64) -> None:
        super().__init__()
        self.scale_one = nn.Sequential(*_trunk(in_channels, [ndf, 2 * ndf, 4 * ndf]))
        self.first_tail = Tail(4 * ndf, 8 * ndf)
        self.scale_two = nn.Sequential(*_conv_norm(4 * ndf, 8 * ndf, 2))
        self.second_tail = Tail(8 * ndf, 8 * ndf)
        self.scale_three = nn.Sequential(*_conv_norm(8 * ndf, 8 * ndf, 2))
        self.third_tail = Tail(8 * ndf, 8 * ndf)

    def forward(self, x: Tensor) -> list[Tensor]:
        one = self.scale_one(x)
        two = self.scale_two(one)
        three = self.scale_three(two)
        return [self.first_tail(one), self.second_tail(two), self.third_tail(three)]


@arch
class DoubleScaleDiscriminator(nn.Module):
    """DeblurGAN-v2's pair: a discriminator of patches and one of large parts of the image.

    Args:
        in_channels: Channels of the image.
        ndf: Channels of the first convolutions.
        patch_layers, full_layers: Halving convolutions of the two.

    Shape:
        (B, in_channels, H, W) in [0, 1], as all images at the package's boundary, to [patch scores, full scores].
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64, patch_layers: int = 3, full_layers: int = 5) -> None:
        super().__init__()
        self.patch = NLayerDiscriminator(in_channels, ndf, patch_layers)
        self.full = NLayerDiscriminator(in_channels, ndf, full_layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        signed = x * 2 - 1
        return [self.patch(signed), self.full(signed)]
