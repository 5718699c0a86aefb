"""SAPHNet: "Spatially-Attentive Patch-Hierarchical Network for Adaptive Motion Deblurring" (Suin et al., CVPR 2020).

Provenance: written from knowledge of the paper, whose text was not at hand; no public implementation or checkpoint is known,
so parity cannot be tested.

Certain from the paper: a patch-hierarchical architecture of encoder-decoders; a content-aware processing module that joins
global attention, of a cost linear in the number of pixels, with pixel-dependent filtering by predicted kernels;
cross-attention between levels. MPRNet's paper gives the network 23.0 M parameters.

Our reading: the levels are those of DMPHN ("Deep Stacked Hierarchical Multi-patch Network", Zhang et al., CVPR 2019), with
weights of their own: 4 quarters, 2 halves, the whole; encoder features are joined in space before the decoder and added to
the next level's, and the decoded residual is added to the next level's input. Three scales of 60/120/240 channels, two
residual blocks each, no normalisation; the content-aware module stands at the two coarser scales of encoder and decoder, its
two branches weighed by one predicted mask; kernels of 3x3, shared by the channels of a pixel; half as many attention maps as
channels. The width is chosen for the published count, and makes 23.01 M parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .mprnet_arch import join_patches, split_patches
from .padding import any_size


def efficient_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention whose cost is linear in the number of pixels ("Efficient Attention", Shen et al., WACV 2021).

    Each of the D key maps, softmax-normalised over the positions, averages the values into one global descriptor; each pixel
    mixes the descriptors by its queries, softmax-normalised over the D. Nothing of H W x H W is ever formed.

    Args:
        queries: (B, D, H, W), unnormalised.
        keys: (B, D, h, w), unnormalised.
        values: (B, C, h, w).

    Returns:
        (B, C, H, W), every element within the range of its channel's values.
    """
    descriptors = torch.einsum('bdn,bcn->bdc', keys.flatten(2).softmax(2), values.flatten(2))
    return torch.einsum('bdhw,bdc->bchw', queries.softmax(1), descriptors)


class GlobalAttention(nn.Module):
    """Attention of ``x`` (B, C, H, W) to ``context`` (B, context_channels, h, w): (B, C, H, W), to be added by the caller."""

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        maps = max(channels // 2, 1)
        self.query = nn.Conv2d(channels, maps, 1)
        # A bias would cancel in the softmax over the positions.
        self.key = nn.Conv2d(context_channels, maps, 1, bias=False)
        self.value = nn.Conv2d(context_channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.project(efficient_attention(self.query(x), self.key(context), self.value(context)))


class PixelDependentFilter(nn.Module):
    """Filters each pixel of (B, C, H, W) with a kernel predicted for it: y_i = sum_j K_i[j - i] W[j - i] x_j + b.

    K is shared by the channels of a pixel, the learned W by the pixels of a channel; zeros beyond the border.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.kernels = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.ReLU(),
                                     nn.Conv2d(channels // 2, kernel_size**2, 1))
        self.weight = nn.Parameter(torch.empty(channels, kernel_size, kernel_size).uniform_(-1, 1) / kernel_size)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        kernels = self.kernels(x)
        padded = F.pad(x, (self.kernel_size // 2,) * 4)
        out = self.bias[:, None, None]
        # Tap by tap: unfolding would hold the map kernel_size^2 times at once, at inference too.
        for tap in range(self.kernel_size**2):
            row, column = divmod(tap, self.kernel_size)
            shifted = padded[..., row:row + height, column:column + width]
            out = out + kernels[:, tap:tap + 1] * (self.weight[:, row, column, None, None] * shifted)
        return out


class ContentAwareModule(nn.Module):
    """Content-aware processing of (B, C, H, W): x + M global attention + (1 - M) pixel-dependent filter, M per pixel."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.attention = GlobalAttention(channels, channels)
        self.filter = PixelDependentFilter(channels, kernel_size)
        self.mask = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.lerp(self.filter(x), self.attention(x, x), self.mask(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with ReLU between, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _blocks(channels: int, num_blocks: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(num_blocks)]


class Encoder(nn.Module):
    """Features of image parts at every scale, finest first.

    With ``cross`` it takes the level below's features too, both lists of this one's shapes: at each scale the encoded ones are
    added, and both are attended to.
    """

    def __init__(self, widths: Sequence[int], num_blocks: int, kernel_size: int, cross: bool) -> None:
        super().__init__()
        self.downs = nn.ModuleList([nn.Conv2d(3, widths[0], 3, padding=1)])
        self.downs.extend(nn.Conv2d(fine, coarse, 3, 2, 1) for fine, coarse in pairwise(widths))
        self.scales = nn.ModuleList(
            nn.Sequential(*_blocks(w, num_blocks), *([ContentAwareModule(w, kernel_size)] if scale else []))
            for scale, w in enumerate(widths))
        self.cross = nn.ModuleList(GlobalAttention(w, 2 * w) for w in widths) if cross else None

    def forward(self, x: Tensor, encoded: Sequence[Tensor] = (), decoded: Sequence[Tensor] = ()) -> list[Tensor]:
        features = []
        for scale, (down, blocks) in enumerate(zip(self.downs, self.scales)):
            x = blocks(down(x))
            if self.cross is not None:
                below = torch.cat([encoded[scale], decoded[scale]], dim=1)
                x = x + encoded[scale] + self.cross[scale](x, below)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the encoder's features, finest first: the decoded ones in the same order, and the residual image."""

    def __init__(self, widths: Sequence[int], num_blocks: int, kernel_size: int) -> None:
        super().__init__()
        self.ups = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 4, 2, 1) for fine, coarse in pairwise(widths))
        self.scales = nn.ModuleList(
            nn.Sequential(*([ContentAwareModule(w, kernel_size)] if scale else []), *_blocks(w, num_blocks))
            for scale, w in enumerate(widths))
        self.tail = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        decoded = [self.scales[-1](features[-1])]
        for up, blocks, skip in reversed([*zip(self.ups, self.scales, features)]):
            decoded.insert(0, blocks(up(decoded[0]) + skip))
        return decoded, self.tail(decoded[0])


@arch
class SAPHNet(nn.Module):
    """SAPHNet: encoder-decoders over quarters, halves and the whole of the image, bottom to top.

    Args:
        width: Channels at the finest scale; each of the two coarser ones doubles them.
        num_blocks: Residual blocks per scale, in each encoder and each decoder.
        kernel_size: Side of the predicted kernels, odd.

    Shape:
        (B, 3, H, W) in [0, 1], any H and W, to the same; padded by reflection to a multiple of 8.
    """

    size_multiple = 8

    def __init__(self, width: int = 60, num_blocks: int = 2, kernel_size: int = 3) -> None:
        super().__init__()
        if width < 2 or kernel_size % 2 == 0:
            raise ValueError(f'width must be at least 2 and kernel_size odd, got {width} and {kernel_size}.')
        widths = [width, 2 * width, 4 * width]
        self.encoders = nn.ModuleList(Encoder(widths, num_blocks, kernel_size, cross=level > 0) for level in range(3))
        self.decoders = nn.ModuleList(Decoder(widths, num_blocks, kernel_size) for _ in range(3))

    @any_size(size_multiple)
    def forward(self, x: Tensor) -> Tensor:
        halves = split_patches(x, -2)
        encoded = [join_patches(f, -1) for f in self.encoders[0](split_patches(halves, -1))]
        decoded, residual = self.decoders[0](encoded)
        encoded = [join_patches(f, -2) for f in self.encoders[1](halves + residual, encoded, decoded)]
        decoded, residual = self.decoders[1](encoded)
        encoded = self.encoders[2](x + residual, encoded, decoded)
        _, residual = self.decoders[2](encoded)
        return x + residual
