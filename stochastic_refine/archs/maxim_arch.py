"""MAXIM: "MAXIM: Multi-Axis MLP for Image Processing" (Tu et al., CVPR 2022).

Provenance: written from the paper and from facts about the published implementation (google-research/maxim, commit 3c82651,
Apache-2.0): parameter names and shapes, wiring, resizing, epsilon, padding; no line of its code is used. Published weights are
converted by :mod:`.maxim_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .maxim_blocks import (
    Conv,
    ConvAttention,
    CrossGating,
    Doubling,
    Groups,
    JoiningLinear,
    LinearAttention,
    MultiAxisMlp,
    SpatialGate,
    SupervisedAttention,
    without_autocast,
)
from .padding import reflect_pad_around


def shrink(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) at 1 / factor of its size, for an even factor: bilinear with antialiasing.

    The same as ``F.interpolate`` with ``antialias=True`` gives, which is thirty times as slow on channels_last and refuses
    bfloat16.
    """
    ramp = torch.arange(1, 2 * factor, 2, device=x.device) / (2 * factor**2)
    taps = torch.cat([ramp, ramp.flip(0)]).to(x.dtype)
    steps = {'stride': factor, 'padding': factor // 2}
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, -1, -1).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x, kernel, groups=x.shape[1], **steps)
    rows, columns = (F.conv1d(x.new_ones(1, 1, side), taps[None, None], **steps)[0, 0] for side in x.shape[2:])
    return y / (rows[:, None] * columns)  # at the border the weights beyond it are missing


class ImageConv(Conv):
    """Convolution of an image, in float32 under autocast too: what bfloat16 rounds off an image, deblurring amplifies."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return super().forward(x)


class Resized(nn.Linear):
    """A map (B, H, W, C) at another level's size, then a linear layer."""

    def __init__(self, in_channels: int, out_channels: int, scale: float) -> None:
        super().__init__(in_channels, out_channels)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        # Resizing and a layer on single pixels may change places, and the smaller map is cheaper
        return self.resize(super().forward(x)) if self.scale > 1 else super().forward(self.resize(x))

    def resize(self, x: Tensor) -> Tensor:
        """The map, resized bilinearly, with antialiasing where it shrinks."""
        if self.scale == 1:
            return x
        x = x.permute(0, 3, 1, 2)
        x = F.interpolate(x, scale_factor=self.scale, mode='bilinear') if self.scale > 1 else shrink(x, round(1 / self.scale))
        return x.permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """One level going down: what goes to this level's skips, and the next level's input."""

    def __init__(self, in_channels: int, channels: int, groups: dict, crosses: bool) -> None:
        super().__init__()
        self.enter = JoiningLinear(in_channels, channels)
        self.groups = Groups(channels, attention=ConvAttention, **groups)
        self.cross_gating = CrossGating(channels, channels, channels, groups['block'], groups['grid']) if crosses else None
        self.down = Conv(channels, channels, 4, stride=2)

    def forward(self, x: Tensor, features: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.groups(self.enter(x, features))
        if self.cross_gating is not None:
            x, _ = self.cross_gating([x], previous)
        return x, self.down(x)


class Decoder(nn.Module):
    """One level going up."""

    def __init__(self, in_channels: int, signal_channels: int, channels: int, groups: dict) -> None:
        super().__init__()
        self.up = Doubling(in_channels, channels)
        self.enter = JoiningLinear(channels + signal_channels, channels)
        self.groups = Groups(channels, attention=ConvAttention, **groups)

    def forward(self, x: Tensor, signal: Sequence[Tensor]) -> Tensor:
        return self.groups(self.enter(self.up(x), *signal))


class Bottleneck(nn.Module):
    """A block at the coarsest size."""

    def __init__(self, channels: int, groups: dict) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, channels)
        self.groups = Groups(channels, attention=LinearAttention, **groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.groups(self.enter(x))


class Stage(nn.Module):
    """A U-Net over the image at every level's size, which also sees what the stage before has made there.

    Args:
        widths: Channels of each level, finest first.
        levels: Options of :class:`Groups` at each level.
        bottleneck: And below, for each block there.
        num_outputs: Channels of the images.
        is_first, is_last: Whether there is no stage before, or none after it.
    """

    def __init__(self, widths: Sequence[int], levels: Sequence[dict], bottleneck: Sequence[dict], num_outputs: int,
                 is_first: bool, is_last: bool) -> None:
        super().__init__()
        finer, coarser = [widths[0], *widths[:-1]], [*widths[1:], widths[-1]]
        places = [(groups['block'], groups['grid']) for groups in levels]

        def resized() -> nn.ModuleList:
            return nn.ModuleList(nn.ModuleList(Resized(c, width, 2.0**(j - i)) for j, c in enumerate(widths))
                                 for i, width in enumerate(widths))

        self.inputs = nn.ModuleList(ImageConv(3, c) for c in widths)
        self.fusions = nn.ModuleList(() if is_first else (CrossGating(c, c, c, *at) for c, at in zip(widths, places)))
        self.encoders = nn.ModuleList(Encoder(above + c, c, groups, crosses=not is_first)
                                      for above, c, groups in zip(finer, widths, levels))
        self.bottleneck = nn.ModuleList(Bottleneck(widths[-1], groups) for groups in bottleneck)
        self.bridges = resized()
        self.skips = nn.ModuleList(CrossGating(len(widths) * c, below, c, *at, doubles=True)
                                   for c, below, at in zip(widths, coarser, places))
        self.signals = resized()
        self.decoders = nn.ModuleList(Decoder(below, len(widths) * c, c, groups)
                                      for c, below, groups in zip(widths, coarser, levels))
        self.attentions = nn.ModuleList(() if is_last else (SupervisedAttention(c, num_outputs) for c in widths))
        self.outputs = nn.ModuleList((Conv(c, num_outputs) for c in widths) if is_last else ())

    def forward(self, images: Sequence[Tensor], previous: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list]:
        """Restored images and, unless it is the last stage, what the next one takes; finest level first.

        Args:
            images: The blurred image at every level's size, (B, H, W, 3).
            previous: At every level, features and attended features of the stage before; empty in the first.
        """
        features = [conv(image) for conv, image in zip(self.inputs, images)]
        if previous:
            features = [fusion([f], attended)[0] for fusion, f, (_, attended) in zip(self.fusions, features, previous)]
        x, encoded = features[0], []
        for level, encoder in enumerate(self.encoders):
            bridge, x = encoder(x, features[level], previous[level][0] if previous else None)
            encoded.append(bridge)
        for block in self.bottleneck:
            x = block(x)

        y, skips = x, []  # coarsest level first, as the layers on them are numbered
        for resized, cross_gating in reversed(list(zip(self.bridges, self.skips))):
            skip, y = cross_gating([layer(bridge) for layer, bridge in zip(resized, encoded)], y)
            skips.insert(0, skip)

        restored, passed = [], []
        for level in reversed(range(len(images))):
            signal = [layer(skip) for layer, skip in reversed(list(zip(self.signals[level], skips)))]
            x = self.decoders[level](x, signal)
            if self.outputs:
                restored.insert(0, self.outputs[level](x) + images[level])
            else:
                image, attended = self.attentions[level](x, images[level])
                restored.insert(0, image)
                passed.insert(0, (encoded[level] + x, attended))
        return restored, passed


@arch
class MAXIM(nn.Module):
    """MAXIM: U-Nets in a row that mix features within blocks and across a grid over the whole image.

    The defaults are the published variant S-3 for deblurring. Under autocast to bfloat16 norms take their statistics in
    float32, and the norms and convolutions that need it get their input so too; with published weights, on crops of real
    photos, the result is then 58 to 66 dB close to that in float32.

    A grid has so many cells however large the image is, so a pixel's result depends on the whole image and on its size. No tile
    is exact, however wide its halo, and none is declared. On a real frame tiles of 256 pixels deviated from the whole image by
    44.7 dB, and by 47.6 and 48.6 dB with 64 and 128 pixels more on every side: blend them where memory forces tiles.

    Args:
        features: Channels of the first level; each level doubles them.
        depth: Levels; the image goes in, and comes out, at as many sizes.
        num_stages: U-Nets in a row.
        num_groups: Mixing and attention blocks in a row at each place.
        num_bottleneck_blocks: Blocks at the coarsest size.
        high_res_stages: Finest levels with the ``_hr`` sizes; the others, and the bottleneck, have the ``_lr`` size.
        block_size_hr, grid_size_hr: (height, width) of a block in pixels, of the grid in cells.
        block_size_lr: Of both.
        channels_reduction: Factor by which channel attention squeezes the channels.
        num_outputs: Channels of the restored images; 3, or they could not be added to the image.

    Shape:
        (B, 3, H, W) in [0, 1] to a list of (B, 3, h, w): for each stage the smallest size first, so that the last is the
        restored image. Padded inside as published: an odd side gets a row or column by reflection, then both ends alike, up to
        a multiple of ``size_multiple`` (64). Images of the smaller sizes are cropped to the same place, their sides rounded
        up; train on multiples of ``size_multiple``, where they fit the resized sharp image exactly.
    """

    def __init__(self,
                 features: int = 32,
                 depth: int = 3,
                 num_stages: int = 3,
                 num_groups: int = 2,
                 num_bottleneck_blocks: int = 2,
                 high_res_stages: int = 2,
                 block_size_hr: Sequence[int] = (16, 16),
                 grid_size_hr: Sequence[int] = (16, 16),
                 block_size_lr: Sequence[int] = (8, 8),
                 channels_reduction: int = 4,
                 num_outputs: int = 3) -> None:
        super().__init__()

        def groups(level: int) -> dict:
            block, grid = (block_size_hr, grid_size_hr) if level < high_res_stages else (block_size_lr, block_size_lr)
            return {'num_groups': num_groups, 'reduction': channels_reduction, 'block': block, 'grid': grid}

        levels = [groups(level) for level in range(depth)]
        low = {**levels[-1], 'block': block_size_lr, 'grid': block_size_lr}
        widths = [features * 2**level for level in range(depth)]
        self.features, self.depth = features, depth
        self.size_multiple = math.lcm(*(side * 2**level for level, at in enumerate([*levels, low])
                                        for side in (*at['block'], *at['grid'])))
        # no ModuleList: the blocks that activation checkpointing finds are those within a stage
        self.stages = nn.ModuleDict({
            str(stage): Stage(widths, levels, [low] * num_bottleneck_blocks, num_outputs, stage == 0, stage == num_stages - 1)
            for stage in range(num_stages)})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights as published: LeCun's normal, but 0.02 in mixing, and gates that start open."""
        fine = {layer for block in self.modules() for layer in (
            block.modules() if isinstance(block, MultiAxisMlp) else
            (block.linear1, block.linear2) if isinstance(block, LinearAttention) else
            (block.grid, block.block) if isinstance(block, SpatialGate) else ())}
        for layer in self.modules():
            if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                continue
            nn.init.zeros_(layer.bias)
            if layer in fine:
                nn.init.normal_(layer.weight, std=0.02)
                continue
            inputs = layer.weight[:, 0] if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0]
            std = inputs.numel()**-0.5 / 0.87962566  # before it is cut at two of it
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        for block in self.modules():
            if isinstance(block, SpatialGate):
                nn.init.ones_(block.grid.bias)
                nn.init.ones_(block.block.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        height, width = x.shape[-2:]
        x, (top, left) = reflect_pad_around(x, self.size_multiple)
        images = [x, *(F.interpolate(x, scale_factor=1 / 2**level, mode='nearest-exact') for level in range(1, self.depth))]
        images = [image.permute(0, 2, 3, 1).contiguous() for image in images]
        outputs, previous = [], []
        for stage in self.stages.values():
            restored, previous = stage(images, previous)
            for level, image in reversed(list(enumerate(restored))):
                y0, x0 = top >> level, left >> level
                y1, x1 = y0 + -(-height >> level), x0 + -(-width >> level)
                outputs.append(image[:, y0:y1, x0:x1].permute(0, 3, 1, 2))
        return outputs
