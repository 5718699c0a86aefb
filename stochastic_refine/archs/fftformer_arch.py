"""FFTformer: "Efficient Frequency Domain-based Transformers for High-Quality Image Deblurring" (Kong et al., CVPR 2023).

Provenance: written from the paper and from facts about the published implementation (kkkls/FFTformer, commit 01306b5):
parameter names and shapes, padding, epsilon, the product without conjugation. Released checkpoints (a bare state dict) load
strictly, with no key map; for that the network carries ``reduce_chan_level2``, which takes no part in the computation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .nafnet_arch import LayerNorm2d
from .padding import any_size

#: Side of the square patches, in pixels of the feature map, whose spectra are taken.
PATCH = 8


def _norm(channels: int) -> nn.Sequential:
    """Layer normalisation over the channels of each pixel, under the published parameter names ``body.*``."""
    return nn.Sequential(OrderedDict(body=LayerNorm2d(channels, eps=1e-5)))


def patch_spectra(x: Tensor) -> Tensor:
    """Spectra of the patches of (B, C, H, W): (B, C, H / 8, W / 8, 8, 5), complex64 also under autocast."""
    patches = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).transpose(3, 4)
    return torch.fft.rfft2(patches.float())


def from_patch_spectra(spectra: Tensor) -> Tensor:
    """The inverse of :func:`patch_spectra`, float32."""
    patches = torch.fft.irfft2(spectra, s=(PATCH, PATCH))
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


class FrequencyAttention(nn.Module):
    """Frequency domain-based self-attention (FSAS) of (B, C, H, W).

    The product of two spectra is a cyclic convolution of query and key inside each patch; normalised, it weighs the value.
    """

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.to_hidden = nn.Conv2d(dim, 6 * dim, 1, bias=bias)
        self.to_hidden_dw = nn.Conv2d(6 * dim, 6 * dim, 3, padding=1, groups=6 * dim, bias=bias)
        self.project_out = nn.Conv2d(2 * dim, dim, 1, bias=bias)
        self.norm = _norm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_hidden_dw(self.to_hidden(x)).chunk(3, dim=1)
        weights = from_patch_spectra(patch_spectra(q) * patch_spectra(k))
        return self.project_out(v * self.norm(weights))


class FrequencyFeedForward(nn.Module):
    """Discriminative frequency domain-based feed-forward (DFFN) of (B, C, H, W): gains per frequency, then a gated MLP."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.fft = nn.Parameter(torch.ones(2 * hidden, 1, 1, PATCH, PATCH // 2 + 1))
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = from_patch_spectra(patch_spectra(self.project_in(x)) * self.fft)
        gate, value = self.dwconv(x).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class FrequencyBlock(nn.Module):
    """The feed-forward and, where ``attention``, frequency attention before it; each on the normalised map and added to it."""

    def __init__(self, dim: int, expansion: float, bias: bool, attention: bool) -> None:
        super().__init__()
        if attention:
            self.norm1 = _norm(dim)
            self.attn = FrequencyAttention(dim, bias)
        self.attention = attention
        self.norm2 = _norm(dim)
        self.ffn = FrequencyFeedForward(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.attention:
            x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Fusion(nn.Module):
    """Mix decoder and encoder maps, each (B, C, H, W), into one of that shape."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.att_channel = FrequencyBlock(2 * dim, 2.66, bias=False, attention=False)
        self.conv = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.conv2 = nn.Conv2d(2 * dim, 2 * dim, 1)

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        x = self.att_channel(self.conv(torch.cat([decoded, encoded], dim=1)))
        a, b = self.conv2(x).chunk(2, dim=1)
        return a + b


def resample(dim: int, out_dim: int, factor: float) -> nn.Sequential:
    """Bilinear resampling by ``factor``, then a convolution to ``out_dim`` channels."""
    body = nn.Sequential(
        nn.Upsample(scale_factor=factor, mode='bilinear', align_corners=False),
        nn.Conv2d(dim, out_dim, 3, padding=1, bias=False))
    return nn.Sequential(OrderedDict(body=body))


@arch
class FFTformer(nn.Module):
    """FFTformer, arguments as in the authors' options files.

    Args:
        inp_channels, out_channels: Channels of input and output, equal.
        dim: Channels of the first level; each level doubles them.
        num_blocks: Blocks of the three levels, both in the encoder (feed-forward only) and in the decoder (with attention).
        num_refinement_blocks: Blocks at full size after the decoder.
        ffn_expansion_factor: Hidden over outer channels in the feed-forward; the fusion modules always have 2.66.
        bias: Whether the blocks' and the last convolution have one.

    Shape:
        (B, inp_channels, H, W) in [0, 1], any H and W, to the same. As in the published test script, sides that are no
        multiple of 32 (patches of 8 at a quarter of the size) are padded by reflection at the right and bottom.
    """

    size_multiple = 4 * PATCH

    def __init__(self,
                 inp_channels: int = 3,
                 out_channels: int = 3,
                 dim: int = 48,
                 num_blocks: Sequence[int] = (6, 6, 12),
                 num_refinement_blocks: int = 4,
                 ffn_expansion_factor: float = 3,
                 bias: bool = False) -> None:
        super().__init__()

        def stage(width: int, blocks: int, attention: bool) -> nn.Sequential:
            return nn.Sequential(*(FrequencyBlock(width, ffn_expansion_factor, bias, attention) for _ in range(blocks)))

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)))
        self.encoder_level1 = stage(dim, num_blocks[0], attention=False)
        self.down1_2 = resample(dim, 2 * dim, 0.5)
        self.encoder_level2 = stage(2 * dim, num_blocks[1], attention=False)
        self.down2_3 = resample(2 * dim, 4 * dim, 0.5)
        self.encoder_level3 = stage(4 * dim, num_blocks[2], attention=False)
        self.decoder_level3 = stage(4 * dim, num_blocks[2], attention=True)
        self.up3_2 = resample(4 * dim, 2 * dim, 2)
        # Never called. Frozen, because DDP waits for the gradient of every parameter that is not.
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias).requires_grad_(False)
        self.fuse2 = Fusion(2 * dim)
        self.decoder_level2 = stage(2 * dim, num_blocks[1], attention=True)
        self.up2_1 = resample(2 * dim, dim, 2)
        self.fuse1 = Fusion(dim)
        self.decoder_level1 = stage(dim, num_blocks[0], attention=True)
        self.refinement = stage(dim, num_refinement_blocks, attention=True)
        self.output = nn.Conv2d(dim, out_channels, 3, padding=1, bias=bias)

    @any_size(size_multiple)
    def forward(self, inp_img: Tensor) -> Tensor:
        skip1 = self.encoder_level1(self.patch_embed(inp_img))
        skip2 = self.encoder_level2(self.down1_2(skip1))
        x = self.decoder_level3(self.encoder_level3(self.down2_3(skip2)))
        x = self.decoder_level2(self.fuse2(self.up3_2(x), skip2))
        x = self.refinement(self.decoder_level1(self.fuse1(self.up2_1(x), skip1)))
        return self.output(x) + inp_img


@arch
class fftformer(FFTformer):  # noqa: N801
    """:class:`FFTformer` under the type name of the authors' options files."""
