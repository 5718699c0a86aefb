"""ResShift's autoencoder, a VQ-GAN: images as latents of a quarter of their size. Provenance: see :mod:`.resshift_arch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.build import arch

#: Pixels that are compared with all codes at once.
_ROWS = 2**12


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Residual block of (B, C, H, W)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = None if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Attention of all pixels of (B, C, H, W) to each other, added to them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(seen)


class Middle(nn.Module):
    """What is between going down and going up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Resample(nn.Module):
    """Half the size, padded at the right and bottom alone, or twice the size."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode='nearest') if self.up else F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks and, where given, resampling, ``downsample`` or ``upsample`` by name."""

    def __init__(self, widths: Sequence[int], resample: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(*pair) for pair in zip(widths, widths[1:]))
        self.resample = resample
        if resample:
            self.add_module(resample, Resample(widths[-1], resample == 'upsample'))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.get_submodule(self.resample)(x) if self.resample else x


class Encoder(nn.Module):
    """(B, in_channels, H, W) to (B, z_channels, H / f, W / f)."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: int, in_channels: int, z_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        before = [channels, *widths]
        self.down = nn.ModuleList(Level([before[i], *[width] * blocks], 'downsample' if i < len(widths) - 1 else None)
                                  for i, width in enumerate(widths))
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, z_channels, h, w) to (B, out_channels, f h, f w)."""

    def __init__(self, widths: Sequence[int], blocks: int, z_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        before = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(Level([before[i], *[width] * (blocks + 1)], 'upsample' if i else None)
                                for i, width in enumerate(widths))
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    """The codes that latents are replaced by."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest code of each pixel of (B, dim, h, w), like z, and their numbers, (B h w,)."""
        codes = self.embedding.weight
        pixels = z.movedim(1, -1).flatten(0, -2).to(codes.dtype)
        numbers = torch.cat([(codes.square().sum(1) - 2 * rows @ codes.t()).argmin(1) for rows in pixels.split(_ROWS)])
        return codes[numbers].unflatten(0, (len(z), *z.shape[2:])).movedim(-1, 1), numbers


@arch
class ResShiftVQ(nn.Module):
    """A VQ autoencoder of images in [-1, 1].

    Args:
        embed_dim: Channels of latents and codes.
        n_embed: Codes.
        ch: Channels of the first level, a multiple of 32.
        ch_mult: Those of each level in units of these; each but the last halves the size.
        num_res_blocks: Residual blocks per level of the encoder; the decoder has one more.
        z_channels: Channels between encoder, codes and decoder.
        in_channels, out_ch: Of the images.
    """

    def __init__(self,
                 embed_dim: int = 3,
                 n_embed: int = 8192,
                 ch: int = 128,
                 ch_mult: Sequence[int] = (1, 2, 4),
                 num_res_blocks: int = 2,
                 z_channels: int = 3,
                 in_channels: int = 3,
                 out_ch: int = 3) -> None:
        super().__init__()
        widths = [mult * ch for mult in ch_mult]
        self.factor = 2**(len(ch_mult) - 1)
        self.latent_channels = embed_dim
        self.encoder = Encoder(ch, widths, num_res_blocks, in_channels, z_channels)
        self.decoder = Decoder(widths, num_res_blocks, z_channels, out_ch)
        self.quantize = Codebook(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """The latent, not quantised, (B, embed_dim, H / factor, W / factor), of (B, 3, H, W) in [-1, 1]."""
        return self.quant_conv(self.encoder(image))

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        """The image of a latent; quantised, as sampling does it, no gradient reaches the latent."""
        return self.decoder(self.post_quant_conv(self.quantize(z)[0] if quantise else z))

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))
