"""HI-Diff's restoring network: Restormer's, that looks at a prior at every level. Provenance: see :mod:`.hidiff_arch`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .build import arch
from .padding import any_size
from .restormer_arch import ChannelAttention, GatedFeedForward, TransformerBlock, channel_norm, doubled, halved


class Modulation(nn.Module):
    """Mixin of a layer of (B, C, H, W): scale and shift of its input, each a linear map of the prior's only token, (B, 256)."""

    def add_modulation(self, dim: int, prior_dim: int) -> None:
        self.ln1 = nn.Linear(prior_dim, dim)
        self.ln2 = nn.Linear(prior_dim, dim)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        return super().forward(x * self.ln1(prior)[..., None, None] + self.ln2(prior)[..., None, None])


class ModulatedAttention(Modulation, ChannelAttention):
    """:class:`ChannelAttention` of a modulated map."""

    def __init__(self, dim: int, heads: int, bias: bool, prior_dim: int) -> None:
        super().__init__(dim, heads, bias)
        self.add_modulation(dim, prior_dim)


class ModulatedFeedForward(Modulation, GatedFeedForward):
    """:class:`GatedFeedForward` of a modulated map."""

    def __init__(self, dim: int, expansion: float, bias: bool, prior_dim: int) -> None:
        super().__init__(dim, expansion, bias)
        self.add_modulation(dim, prior_dim)


class ModulatedBlock(nn.Module):
    """:class:`TransformerBlock` both of whose parts are modulated by a prior."""

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, norm: str, prior_dim: int) -> None:
        super().__init__()
        self.norm1 = channel_norm(dim, norm)
        self.attn = ModulatedAttention(dim, heads, bias, prior_dim)
        self.norm2 = channel_norm(dim, norm)
        self.ffn = ModulatedFeedForward(dim, expansion, bias, prior_dim)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), prior)
        return x + self.ffn(self.norm2(x), prior)


class PriorAttention(nn.Module):
    """Hierarchical integration module (HIM): every pixel of (B, C, H, W) attends to the tokens of a prior, (B, N, 256)."""

    def __init__(self, dim: int, heads: int, norm: str, prior_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = channel_norm(dim, norm)
        self.norm2 = channel_norm(prior_dim, norm)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(prior_dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        prior = self.norm2(prior.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)  # which knows (B, C, H, W)
        q = self.q(self.norm1(x).flatten(2).transpose(1, 2))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, *self.kv(prior).chunk(2, dim=-1)))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.proj(seen).transpose(1, 2).reshape(x.shape)


class GuidedLevel(nn.Module):
    """The blocks of a level: guided by several tokens, which all pixels look at first, or by one, which modulates them all."""

    def __init__(self, dim: int, blocks: int, heads: int, expansion: float, bias: bool, norm: str, prior_dim: int,
                 one_token: bool = False) -> None:
        super().__init__()
        settings = (dim, heads, expansion, bias, norm)
        self.him = None if one_token else PriorAttention(dim, heads, norm, prior_dim)
        self.blocks = nn.ModuleList(ModulatedBlock(*settings, prior_dim) if one_token else TransformerBlock(*settings)
                                    for _ in range(blocks))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        if self.him is not None:
            x = self.him(x, prior)
        for block in self.blocks:
            x = block(x, prior[:, 0]) if self.him is None else block(x)
        return x


class TokenReduction(nn.Sequential):
    """Fewer tokens of a prior, (B, N, C): a linear map over the tokens, and one over the channels."""

    def __init__(self, tokens: int, fewer: int, channels: int) -> None:
        # Steps 0 and 2, which the published network numbers, exchange tokens and channels.
        super().__init__(nn.Identity(), nn.Linear(tokens, fewer), nn.Identity(), nn.Linear(channels, channels))

    def forward(self, prior: Tensor) -> Tensor:
        return self[3](self[1](prior.transpose(1, 2)).transpose(1, 2))


@arch
class HIDiffTransformer(nn.Module):
    """``net_g`` of HI-Diff, arguments as in the authors' options files.

    Args:
        inp_channels, out_channels, dim, num_blocks, num_refinement_blocks, heads, ffn_expansion_factor, bias,
            LayerNorm_type: As of :class:`~stochastic_refine.archs.Restormer`.
        dual_pixel_task: Accepted for the authors' options files, which leave it false; there is no such task here.
        embed_dim: A quarter of the channels of the prior's tokens.
        group: A prior has so many tokens along each side.

    Shape:
        inp_img, (B, 3, H, W), [0, 1], any H and W, and prior, (B, group^2, 4 embed_dim), to an image like the first; padded
        inside by reflection at the right and bottom to multiples of 8.
    """

    size_multiple = 8

    def __init__(self,
                 inp_channels: int = 3,
                 out_channels: int = 3,
                 dim: int = 48,
                 num_blocks: Sequence[int] = (3, 5, 6, 6),
                 num_refinement_blocks: int = 4,
                 heads: Sequence[int] = (1, 2, 4, 8),
                 ffn_expansion_factor: float = 2.66,
                 bias: bool = False,
                 LayerNorm_type: str = 'WithBias',
                 dual_pixel_task: bool = False,
                 embed_dim: int = 64,
                 group: int = 4) -> None:
        super().__init__()
        if LayerNorm_type not in ('WithBias', 'BiasFree'):
            raise ValueError(f"LayerNorm_type is '{LayerNorm_type}'; it must be WithBias or BiasFree.")
        if dual_pixel_task:
            raise ValueError('dual_pixel_task is not offered; leave it out or set it to false.')
        tokens, prior_dim = group**2, 4 * embed_dim
        self.prior_shape = (tokens, prior_dim)

        def level(width: int, index: int, blocks: int) -> GuidedLevel:
            return GuidedLevel(width, blocks, heads[index], ffn_expansion_factor, bias, LayerNorm_type, prior_dim, index == 3)

        self.down_1 = TokenReduction(tokens, tokens // 4, prior_dim)
        self.down_2 = TokenReduction(tokens // 4, 1, prior_dim)
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)))
        self.encoder_level1 = level(dim, 0, num_blocks[0])
        self.down1_2 = halved(dim)
        self.encoder_level2 = level(2 * dim, 1, num_blocks[1])
        self.down2_3 = halved(2 * dim)
        self.encoder_level3 = level(4 * dim, 2, num_blocks[2])
        self.down3_4 = halved(4 * dim)
        self.latent = level(8 * dim, 3, num_blocks[3])
        self.up4_3 = doubled(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(4 * dim, 2, num_blocks[2])
        self.up3_2 = doubled(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, 1, num_blocks[1])
        self.up2_1 = doubled(2 * dim)
        self.decoder_level1 = level(2 * dim, 0, num_blocks[0])
        self.refinement = level(2 * dim, 0, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def trial(self, lq: Tensor) -> list[Tensor]:
        """What it makes of an image and a prior of zeros."""
        return [self(lq, lq.new_zeros(len(lq), *self.prior_shape))]

    @any_size(size_multiple)
    def forward(self, inp_img: Tensor, prior: Tensor | None = None) -> Tensor:
        if prior is None:
            raise InputError('HIDiffTransformer restores with a prior, which other networks make; put net_le_dm_*.pth and '
                             'net_d_*.pth beside its net_g_*.pth, and name their folder.')
        few = self.down_1(prior)
        one = self.down_2(few)
        skip1 = self.encoder_level1(self.patch_embed(inp_img), prior)
        skip2 = self.encoder_level2(self.down1_2(skip1), few)
        skip3 = self.encoder_level3(self.down2_3(skip2), few)
        x = self.up4_3(self.latent(self.down3_4(skip3), one))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, skip3], dim=1)), few)
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), skip2], dim=1)), few)
        x = self.decoder_level1(torch.cat([self.up2_1(x), skip1], dim=1), prior)
        return self.output(self.refinement(x, prior)) + inp_img
