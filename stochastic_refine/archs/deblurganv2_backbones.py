"""Backbones of DeblurGAN-v2: MobileNetV2 (Sandler et al., CVPR 2018) and Inception-ResNet-v2 (Szegedy et al., AAAI 2017).

Provenance: written from those papers and from facts about the published implementation (VITA-Group/DeblurGANv2, commit
c16bd9f): parameter names and shapes, padding, epsilon. Each backbone comes with its five stages, each of which about halves
the size. Parts that no stage uses are there because released checkpoints hold them; they are frozen and never called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Channels after each stage.
MOBILENET_CHANNELS = (16, 24, 32, 64, 160)
INCEPTION_CHANNELS = (32, 64, 192, 1088, 2080)


def _conv_bn(channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection; added to the input where shapes agree."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers = [] if expansion == 1 else [*_conv_bn(channels, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*_conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*layers, *_conv_bn(hidden, out_channels, 1))
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_v2_features() -> nn.Sequential:
    """The 19 features of MobileNetV2 at width 1."""
    layers: list[nn.Module] = [nn.Sequential(*_conv_bn(3, 32, 3, stride=2), nn.ReLU6(inplace=True))]
    channels = 32
    for expansion, width, blocks, first_stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                                   (6, 160, 3, 2), (6, 320, 1, 1)):
        for index in range(blocks):
            layers.append(InvertedResidual(channels, width, first_stride if index == 0 else 1, expansion))
            channels = width
    return nn.Sequential(*layers, nn.Sequential(*_conv_bn(channels, 1280, 1), nn.ReLU6(inplace=True)))


def mobilenet_stages(features: nn.Sequential) -> list[nn.Module]:
    """Sizes 1/2 to 1/32; the last three features belong to no stage."""
    features[16:].requires_grad_(False)
    return [nn.Sequential(*features[start:end]) for start, end in ((0, 2), (2, 4), (4, 7), (7, 11), (11, 16))]


class ConvBN(nn.Module):
    """Convolution, batch normalisation (epsilon 1e-3), ReLU; padded only where ``padding`` says so."""

    def __init__(self, channels: int, out_channels: int, kernel: int | tuple[int, int], stride: int = 1,
                 padding: int | tuple[int, int] = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Branches(nn.Module):
    """Parallel branches whose outputs are concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = len(branches)
        for index, branch in enumerate(branches):
            self.add_module(f'branch{index}', branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(f'branch{index}')(x) for index in range(self.branches)], dim=1)


class ResidualBranches(Branches):
    """Branches, brought back to the input's channels, scaled and added to it; ReLU unless ``last``.

    Args:
        channels: Channels of input and output.
        joined: Channels of all branches together.
        scale: Factor on the residual.
    """

    def __init__(self, channels: int, joined: int, scale: float, *branches: nn.Module, last: bool = False) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.conv2d(super().forward(x))
        return x if self.last else x.relu()


def _block35() -> ResidualBranches:
    return ResidualBranches(
        320, 128, 0.17,
        ConvBN(320, 32, 1),
        nn.Sequential(ConvBN(320, 32, 1), ConvBN(32, 32, 3, padding=1)),
        nn.Sequential(ConvBN(320, 32, 1), ConvBN(32, 48, 3, padding=1), ConvBN(48, 64, 3, padding=1)))


def _factorised(channels: int, widths: Sequence[int], length: int) -> nn.Sequential:
    """1x1, then 1 x ``length``, then ``length`` x 1."""
    pad = length // 2
    return nn.Sequential(
        ConvBN(channels, widths[0], 1),
        ConvBN(widths[0], widths[1], (1, length), padding=(0, pad)),
        ConvBN(widths[1], widths[2], (length, 1), padding=(pad, 0)))


def _block17() -> ResidualBranches:
    return ResidualBranches(1088, 384, 0.1, ConvBN(1088, 192, 1), _factorised(1088, (128, 160, 192), 7))


def _block8(last: bool = False) -> ResidualBranches:
    scale = 1.0 if last else 0.2
    return ResidualBranches(2080, 448, scale, ConvBN(2080, 192, 1), _factorised(2080, (192, 224, 256), 3), last=last)


class InceptionResNetV2(nn.Module):
    """The layers of Inception-ResNet-v2 under their published names; only :func:`inception_stages` runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = ConvBN(3, 32, 3, stride=2)
        self.conv2d_2a = ConvBN(32, 32, 3)
        self.conv2d_2b = ConvBN(32, 64, 3, padding=1)
        self.conv2d_3b = ConvBN(64, 80, 1)
        self.conv2d_4a = ConvBN(80, 192, 3)
        self.mixed_5b = Branches(
            ConvBN(192, 96, 1),
            nn.Sequential(ConvBN(192, 48, 1), ConvBN(48, 64, 5, padding=2)),
            nn.Sequential(ConvBN(192, 64, 1), ConvBN(64, 96, 3, padding=1), ConvBN(96, 96, 3, padding=1)),
            nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBN(192, 64, 1)))
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        self.mixed_6a = Branches(
            ConvBN(320, 384, 3, stride=2),
            nn.Sequential(ConvBN(320, 256, 1), ConvBN(256, 256, 3, padding=1), ConvBN(256, 384, 3, stride=2)),
            nn.MaxPool2d(3, stride=2))
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = Branches(
            nn.Sequential(ConvBN(1088, 256, 1), ConvBN(256, 384, 3, stride=2)),
            nn.Sequential(ConvBN(1088, 256, 1), ConvBN(256, 288, 3, stride=2)),
            nn.Sequential(ConvBN(1088, 256, 1), ConvBN(256, 288, 3, padding=1), ConvBN(288, 320, 3, stride=2)),
            nn.MaxPool2d(3, stride=2))
        self.repeat_2 = nn.Sequential(*(_block8() for _ in range(9)))
        self.block8 = _block8(last=True)
        self.conv2d_7b = ConvBN(2080, 1536, 1)
        self.last_linear = nn.Linear(1536, 1000)
        for unused in (self.repeat_2, self.block8, self.conv2d_7b, self.last_linear):
            unused.requires_grad_(False)


def inception_stages(net: InceptionResNetV2) -> list[nn.Module]:
    """Sizes 1/2 to 1/32, each a few pixels short, because most convolutions are not padded."""
    pool = nn.MaxPool2d(3, stride=2)
    return [
        net.conv2d_1a,
        nn.Sequential(net.conv2d_2a, net.conv2d_2b, pool),
        nn.Sequential(net.conv2d_3b, net.conv2d_4a, pool),
        nn.Sequential(net.mixed_5b, net.repeat, net.mixed_6a),
        nn.Sequential(net.repeat_1, net.mixed_7a),
    ]
