"""What makes HI-Diff's priors: the encoder of images to tokens, and the denoiser of tokens.

A prior is 16 tokens, (B, 16, 256), which say of each sixteenth of an image what it should look like. Provenance: see
:mod:`.hidiff_arch`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .padding import reflect_pad_to_multiple


class Mixer(nn.Module):
    """MLP-mixer block of (B, tokens, dim): one MLP over the tokens, one over the channels, each added to its input.

    Args:
        dim, tokens: Sizes of what is mixed.
        patch_expansion, channel_expansion: Hidden over outer widths of the two.
    """

    def __init__(self, dim: int, tokens: int, patch_expansion: float, channel_expansion: float) -> None:
        super().__init__()

        def mlp(width: int, expansion: float) -> nn.Sequential:
            hidden = int(width * expansion)
            return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

        self.patch_mixer = mlp(tokens, patch_expansion)
        self.channel_mixer = mlp(dim, channel_expansion)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.patch_mixer(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mixer(self.norm2(x))


@arch
class HIDiffEncoder(nn.Module):
    """Encodes an image, or a blurred and a sharp one together, as a prior; arguments as in the authors' options files.

    Args:
        in_chans: 3 for the blurred image alone (``net_le_dm``), 6 for both (``net_le``).
        embed_dim: Channels of the feature maps; a prior's tokens have four times as many.
        block_num: Residual blocks.
        group: A prior has so many tokens along each side.
        stage: Accepted for the authors' options files; ``in_chans`` says it.
        patch_expansion, channel_expansion: Of the mixer.

    Shape:
        lq and gt, (B, 3, H, W), [0, 1], any H and W, to (B, group^2, 4 embed_dim); padded inside by reflection to multiples of
        4.
    """

    def __init__(self,
                 in_chans: int = 3,
                 embed_dim: int = 64,
                 block_num: int = 6,
                 group: int = 4,
                 stage: int | None = None,
                 patch_expansion: float = 0.5,
                 channel_expansion: float = 4) -> None:
        super().__init__()
        self.group = group

        def conv(channels: int = embed_dim) -> nn.Conv2d:
            return nn.Conv2d(channels, embed_dim, 3, padding=1)

        self.conv1 = nn.Sequential(conv(16 * in_chans), nn.GELU())
        self.blocks = nn.ModuleList(nn.Sequential(conv(), nn.GELU(), conv()) for _ in range(block_num))
        self.conv2 = conv()
        self.mlp = Mixer(embed_dim, group**2, patch_expansion, channel_expansion)
        self.end = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.GELU())

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor:
        image = reflect_pad_to_multiple(lq if gt is None else torch.cat([gt, lq], dim=1), 4)
        x = self.conv1(F.pixel_unshuffle(image, 4))
        for block in self.blocks:
            x = x + block(x)
        tokens = F.adaptive_avg_pool2d(self.conv2(x), self.group).flatten(2).transpose(1, 2)
        return self.end(self.mlp(tokens))


@arch
class HIDiffDenoiser(nn.Module):
    """Predicts the noise in a prior, given that of the blurred image; arguments as in the authors' options files.

    Args:
        in_channel, out_channel: Channels of a prior's tokens.
        inner_channel: Channels between.
        block_num: As the authors count: a mixer, and what follows it, are two.
        group: A prior has so many tokens along each side.
        patch_expansion, channel_expansion: Of the mixers.

    Shape:
        x, c: the noisy prior and the blurred image's, (B, group^2, in_channel); t: the step, from 1, that broadcasts against
        them. To (B, group^2, out_channel); a GELU comes last, as published.
    """

    def __init__(self,
                 in_channel: int = 256,
                 out_channel: int = 256,
                 inner_channel: int = 512,
                 block_num: int = 4,
                 group: int = 4,
                 patch_expansion: float = 0.5,
                 channel_expansion: float = 2) -> None:
        super().__init__()
        self.shape = (group**2, in_channel)
        self.time_mlp = nn.Parameter(torch.tensor([1e-3]))
        self.first_layer = nn.Sequential(nn.Linear(3 * in_channel, inner_channel), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(
            nn.Sequential(Mixer(inner_channel, group**2, patch_expansion, channel_expansion), nn.GELU())
            for _ in range(block_num // 2))
        self.final_layer = nn.Sequential(nn.Linear(inner_channel, out_channel), nn.GELU())

    def forward(self, x: Tensor, c: Tensor, t: Tensor) -> Tensor:
        x = self.first_layer(torch.cat([x, (t * self.time_mlp).expand_as(x), c], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.final_layer(x)
