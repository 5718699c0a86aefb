"""NAFNet and NAFNetLocal: "Simple Baselines for Image Restoration" (Chen et al., ECCV 2022).

Provenance: written from the paper and from facts about the published implementation (megvii-research/NAFNet, commit 2b4af71,
MIT): parameter names and shapes, padding, epsilon, test-time behaviour. Released checkpoints (key ``params``) load strictly,
with no key map. NAFNetLocal is NAFNet with the test-time local converter of "Improving Image Restoration by Revisiting Global
Information Aggregation" (Chu et al., ECCV 2022): global average pooling becomes pooling over a window of 1.5 times the training
crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        x = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class LocalAvgPool(nn.Module):
    """Average over a sliding window; the plain global mean where the window covers the map in both directions.

    Args:
        window: (height, width) in pixels of the feature map; None for the global mean.
    """

    def __init__(self, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.window is None or (self.window[0] >= height and self.window[1] >= width):
            return x.mean((2, 3), keepdim=True)
        k1, k2 = min(self.window[0], height), min(self.window[1], width)
        # Window sums by a summed-area table; float64, because its far corner is large and differences of it are small.
        table = F.pad(x.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
        sums = table[..., k1:, k2:] - table[..., :-k1, k2:] - table[..., k1:, :-k2] + table[..., :-k1, :-k2]
        local = (sums / (k1 * k2)).to(x.dtype)
        top, left = (k1 - 1) // 2, (k2 - 1) // 2
        return F.pad(local, (left, k2 - 1 - left, top, k1 - 1 - top), mode='replicate')


def _gate(x: Tensor) -> Tensor:
    """SimpleGate: the product of the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return a * b


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block of (B, C, H, W): gated depthwise convolution with channel attention, then a gated MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(LocalAvgPool(), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = _gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.beta * self.conv3(h * self.sca(h))
        return x + self.gamma * self.conv5(_gate(self.conv4(self.norm2(x))))


@arch
class NAFNet(nn.Module):
    """NAFNet, arguments as in the authors' options files.

    Args:
        img_channel: Channels of input and output.
        width: Channels of the first level; each level doubles them.
        middle_blk_num: Blocks at the coarsest level.
        enc_blk_nums, dec_blk_nums: Blocks per level going down and going up.

    Shape:
        (B, img_channel, H, W) in [0, 1], any H and W, to the same; zero-padded inside to a multiple of 2^levels.
    """

    def __init__(self,
                 img_channel: int = 3,
                 width: int = 16,
                 middle_blk_num: int = 1,
                 enc_blk_nums: Sequence[int] = (),
                 dec_blk_nums: Sequence[int] = ()) -> None:
        super().__init__()
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for blocks in enc_blk_nums:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(width) for _ in range(middle_blk_num)))
        for blocks in dec_blk_nums:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
        self.size_multiple = 2**len(self.encoders)

    def forward(self, inp: Tensor) -> Tensor:
        height, width = inp.shape[-2:]
        inp = F.pad(inp, (0, -width % self.size_multiple, 0, -height % self.size_multiple))
        x = self.intro(inp)
        skips = []
        for encoder, down in zip(self.encoders, self.downs):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for decoder, up in zip(self.decoders, self.ups):
            x = decoder(up(x) + skips.pop())
        return (self.ending(x) + inp)[..., :height, :width]


@arch
class NAFNetLocal(NAFNet):
    """NAFNet with test-time local pooling, as the authors score it.

    Args:
        train_size: (1, C, H, W) of the training crops; windows are 1.5 times as large, scaled with each level.
        fast_imp: Accepted for the authors' options files, which leave it false; the approximation is not offered.
    """

    def __init__(self, *args: object, train_size: Sequence[int] = (1, 3, 256, 256), fast_imp: bool = False,
                 **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if fast_imp:
            raise ValueError('fast_imp is an approximation that is not offered; leave it out or set it to false.')
        base = [int(side * 1.5) for side in train_size[-2:]]
        padded = [-(-side // self.size_multiple) * self.size_multiple for side in train_size[-2:]]
        levels = [*self.encoders, self.middle_blks]
        scales = {id(block): 2**level for level, blocks in enumerate(levels) for block in blocks}
        scales |= {id(block): 2**(len(self.decoders) - 1 - level) for level, d in enumerate(self.decoders) for block in d}
        for block in self.modules():
            if isinstance(block, NAFBlock):
                sizes = [p // scales[id(block)] for p in padded]
                block.sca[0].window = tuple(size * b // side for size, b, side in zip(sizes, base, train_size[-2:]))
