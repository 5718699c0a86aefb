"""RefineUNet: the U-Net of "Deblurring via Stochastic Refinement" (Whang et al., CVPR 2022).

Provenance: written from the paper (Sec. 4.2, Table 4) and from SR3 (Saharia et al., 2021, whose U-Net with BigGAN residual
blocks it takes, without self-attention, pixel positions and group normalisation). No reference code is public. The block counts
are not printed in the paper; they are pinned by its parameter and FLOP counts (tests/test_archs/test_refine_unet_arch.py).
Our reading where the paper is silent: SiLU; resampling before the first convolution of its block; WaveGrad's scaling of the
noise level; second convolutions start at 0.3 of their usual size, which keeps a deep net without normalisation trainable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .padding import cropped, reflect_pad_to_multiple


class NoiseLevelEmbedding(nn.Module):
    """Sinusoids of the noise level, then two linear layers: (B,) to (B, 4 dim).

    The level is multiplied by 5000 before the sinusoids, as in WaveGrad (Chen et al., ICLR 2021), so that levels near 1,
    where sqrt(alpha_bar) hardly moves, stay distinguishable.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, 4 * dim))

    def forward(self, noise_level: Tensor) -> Tensor:
        half = self.dim // 2
        frequencies = torch.exp(torch.arange(half, device=noise_level.device) * (-math.log(1e4) / half))
        angles = 5000 * noise_level.float()[:, None] * frequencies[None]
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))


class ResidualBlock(nn.Module):
    """BigGAN-style residual block: act, 3x3, (+ noise embedding), act, 3x3; optionally resampling in front of it all.

    Args:
        in_channels: C_in.
        out_channels: C_out; the skip path gets a 1x1 convolution only where it differs from C_in.
        embedding_dim: Width of the noise embedding; None for a block without one.
        resample: ``'down'`` (2x average pooling), ``'up'`` (nearest) or None.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 embedding_dim: int | None = None,
                 resample: str | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, out_channels) if embedding_dim else None
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)

    def forward(self, x: Tensor, embedding: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Run the block on ``embedding``, (B, embedding_dim), or on the ``bias`` that :meth:`noise_bias` made of one."""
        h = F.silu(x)
        if self.resample == 'down':
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        elif self.resample == 'up':
            x, h = F.interpolate(x, scale_factor=2), F.interpolate(h, scale_factor=2)
        if bias is not None:
            h = F.conv2d(h, self.conv1.weight, bias, padding=1)
        else:
            h = self.conv1(h)
            if self.embedding is not None:
                h = h + self.embedding(embedding)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(h))

    def noise_bias(self, embedding: Tensor) -> Tensor:
        """What the first convolution and a noise embedding add to a channel, (..., embedding_dim) to (..., C_out)."""
        return self.conv1.bias + self.embedding(embedding)


class DenoisingStep(NamedTuple):
    """What a call of the denoiser need not compute again, since it does not depend on the noisy residual.

    Args:
        biases: For each block the bias of its first convolution at this noise level, (C_out,).
        condition: The condition's share of the first convolution, (B, C, H', W') with the batch's B or 1; None if the condition
            comes with the input.
    """

    biases: Sequence[Tensor]
    condition: Tensor | None = None


@arch
class RefineUNet(nn.Module):
    """Fully convolutional U-Net, used as initial predictor g and as denoiser f.

    Args:
        in_channels: 3 for the predictor; 6 for the denoiser (noisy residual and blurry image).
        out_channels: Channels of the result.
        base_channels: Width c of the first level; even if ``noise_conditioned``.
        channel_mults: Width of each level as a multiple of c.
        num_res_blocks: Residual blocks per level going down; one more per level going up.
        noise_conditioned: Whether ``forward`` takes a noise level.
        patch_size: Work on p x p blocks of pixels stacked as channels (pixel unshuffling) at 1/p of the size; 1 in the
            paper's nets. With 2 a net of the same width costs a quarter.
        global_skip: Add the first ``out_channels`` input channels to the result. Off in the paper's nets; short trainings of
            a predictor need it.

    Shape:
        x: (B, in_channels, H, W) for any H, W >= 1; noise_level: (B,); result: (B, out_channels, H, W).
    """

    def __init__(self,
                 in_channels: int = 3,
                 out_channels: int = 3,
                 base_channels: int = 64,
                 channel_mults: Sequence[int] = (1, 2, 3, 4),
                 num_res_blocks: int = 3,
                 noise_conditioned: bool = False,
                 patch_size: int = 1,
                 global_skip: bool = False) -> None:
        super().__init__()
        if noise_conditioned and base_channels % 2:
            raise ValueError(f'base_channels must be even in a noise-conditioned net, got {base_channels}.')
        self.patch_size = patch_size
        self.num_res_blocks = num_res_blocks
        self.levels = len(channel_mults)
        self.out_channels = out_channels
        self.global_skip = global_skip
        self.noise_embedding = NoiseLevelEmbedding(base_channels) if noise_conditioned else None
        embedding_dim = 4 * base_channels if noise_conditioned else None
        widths = [base_channels * mult for mult in channel_mults]

        self.conv_in = nn.Conv2d(in_channels * patch_size**2, base_channels, 3, padding=1)
        self.down = nn.ModuleList()
        skip_widths = [base_channels]
        current = base_channels
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                self.down.append(ResidualBlock(current, width, embedding_dim))
                current = width
                skip_widths.append(current)
            if level < self.levels - 1:
                self.down.append(ResidualBlock(current, current, embedding_dim, resample='down'))
                skip_widths.append(current)

        self.middle = nn.ModuleList(ResidualBlock(current, current, embedding_dim) for _ in range(2))

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                self.up.append(ResidualBlock(current + skip_widths.pop(), width, embedding_dim))
                current = width
            if level > 0:
                self.up.append(ResidualBlock(current, current, embedding_dim, resample='up'))
        self.conv_out = nn.Conv2d(current, out_channels * patch_size**2, 3, padding=1)
        if global_skip:  # start at the identity, the best guess before any training
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)

    @property
    def size_multiple(self) -> int:
        """Inputs are padded to a multiple of this many pixels (8 with four levels)."""
        return self.patch_size * 2**(self.levels - 1)

    @property
    def receptive_radius(self) -> int:
        """How many pixels away an input pixel can matter, counted over the 3x3 convolutions (286 for the paper's nets)."""
        finest_to_coarsest = range(self.levels)
        down = sum((2 * self.num_res_blocks + (2 if level else 1)) * 2**level for level in finest_to_coarsest)
        up = sum((2 * (self.num_res_blocks + 1) + (2 if level < self.levels - 1 else 0)) * 2**level
                 for level in finest_to_coarsest)
        return self.patch_size * (down + 4 * 2**(self.levels - 1) + up + 1)

    @property
    def tile_halo(self) -> int:
        """Pixels around a tile, aligned to ``size_multiple``, that make its output exact (288 for the paper's nets).

        A little more than the receptive radius, since at each change of level the reach grows to whole pooled pixels.
        """
        block, level_change, coarsest = 2, 2, self.levels - 1  # convolutions of a block, of a resampling block
        reach = 1
        for level in range(self.levels):  # from the output down to the coarsest level, in pixels of that level
            reach = -(-reach // 2) if level else reach
            reach += block * (self.num_res_blocks + 1) + (level_change if level < coarsest else 0)
        reach += 2 * block
        for level in reversed(range(self.levels)):  # and up to the input
            reach = reach * 2 if level < coarsest else reach
            reach += block * self.num_res_blocks + (level_change if level else 1)
        return -(-reach * self.patch_size // self.size_multiple) * self.size_multiple

    def prepare_denoising(self, noise_levels: Sequence[float], condition: Tensor | None = None) -> dict[float, DenoisingStep]:
        """Compute once what all denoising calls of an image share.

        Args:
            noise_levels: Those of the calls to come; see :meth:`forward`.
            condition: The last input channels of all these calls, (B or 1, C, H, W).

        Returns:
            By noise level what :meth:`forward` takes as ``step``, on the remaining input channels.

        Raises:
            ValueError: If the net takes no noise level.
        """
        self._check(noise_levels)
        share = None
        if condition is not None:
            weight = self.conv_in.weight[:, -condition.shape[1] * self.patch_size**2:]
            share = F.conv2d(self._unshuffled(condition), weight, self.conv_in.bias, padding=1)
        embedding = F.silu(self.noise_embedding(torch.tensor(noise_levels, device=self.conv_in.weight.device)))
        biases = [block.noise_bias(embedding) for block in (*self.down, *self.middle, *self.up)]
        return {level: DenoisingStep(of_level, share) for level, *of_level in zip(noise_levels, *biases)}

    def forward(self, x: Tensor, noise_level: Tensor | None = None, step: DenoisingStep | None = None) -> Tensor:
        """Run the net.

        Args:
            x: Input; see the class's shapes.
            noise_level: sqrt(alpha_bar) in [0, 1] per sample, as in WaveGrad and SR3. It *falls* as noise grows: 1 is clean.
            step: In place of a noise level, and of the condition among the input channels, what :meth:`prepare_denoising` made
                of them.

        Raises:
            ValueError: If a noise level is missing or not expected.
        """
        height, width = x.shape[-2:]
        embedding, biases = None, repeat(None)
        if step is not None:
            biases = iter(step.biases)
        else:
            self._check(noise_level)
            embedding = None if noise_level is None else F.silu(self.noise_embedding(noise_level))

        if step is None or step.condition is None:
            h = self.conv_in(self._unshuffled(x))
        else:  # a convolution is linear in its input channels
            weight = self.conv_in.weight[:, :x.shape[1] * self.patch_size**2]
            h = F.conv2d(self._unshuffled(x), weight, padding=1) + step.condition
        skips = [h]
        for block in self.down:
            h = block(h, embedding, next(biases))
            skips.append(h)
        for block in self.middle:
            h = block(h, embedding, next(biases))
        for block in self.up:
            h = block(h if block.resample else torch.cat([h, skips.pop()], dim=1), embedding, next(biases))
        h = F.pixel_shuffle(self.conv_out(F.silu(h)), self.patch_size)
        h = cropped(h, height, width)
        return h + x[:, :self.out_channels] if self.global_skip else h

    def _unshuffled(self, x: Tensor) -> Tensor:
        """What the first convolution sees of ``x``."""
        return F.pixel_unshuffle(reflect_pad_to_multiple(x, self.size_multiple), self.patch_size)

    def _check(self, noise_level: Tensor | Sequence[float] | None) -> None:
        if (noise_level is None) != (self.noise_embedding is None):
            raise ValueError('This RefineUNet is noise-conditioned and needs a noise_level.' if noise_level is None else
                             'This RefineUNet takes no noise_level (noise_conditioned is false).')
