"""SimpleNet: "Perceptual Variousness Motion Deblurring with Light Global Context Refinement" (Li et al., ICCV 2021).

Provenance: written from knowledge of the paper, whose text was not at hand; no public implementation or checkpoint is known,
so parity cannot be tested. Nor is a parameter count of the paper known to us: ours, 12.5 M, is a choice.

Certain from the paper: perceptual variousness blocks (PVB) of several receptive fields, piled so that the whole network has
a rich spectrum of them; light global context refinement (LGCR), a module that analyses the whole map at a far lower cost than
a non-local block.

Our reading: a block's branches are 3x3 convolutions of dilations 1, 2, 4 and 8, joined by a 1x1 convolution and added to the
input; LGCR averages the map into a few global descriptors, lets the descriptors inform each other, and gives each pixel its
own mixture of them. An encoder-decoder of three scales, most blocks at the coarsest, LGCR after every few blocks there; no
normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .build import arch
from .padding import any_size


class PerceptualVariousnessBlock(nn.Module):
    """Parallel 3x3 convolutions of several dilations, fused, plus the input: (B, C, H, W) to the same.

    Args:
        channels: A multiple of the number of dilations: each branch yields an equal share of them.
        dilations: Of the branches, in pixels of the feature map.
    """

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels // len(dilations), 3, padding=d, dilation=d) for d in dilations)
        self.fuse = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1).relu())


class LightGlobalContextRefinement(nn.Module):
    """Refines each pixel of (B, C, H, W) by a few descriptors of the whole map; linear in the number of pixels.

    Args:
        channels: C.
        num_descriptors: Global descriptors, each a weighted average of the map.
    """

    def __init__(self, channels: int, num_descriptors: int) -> None:
        super().__init__()
        inner = max(channels // 4, 1)
        # A bias would cancel in the softmax over the positions.
        self.gather = nn.Conv2d(channels, num_descriptors, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1)
        self.relate = nn.Conv1d(num_descriptors, num_descriptors, 1)
        self.distribute = nn.Conv2d(channels, num_descriptors, 1)
        self.project = nn.Conv2d(inner, channels, 1)

    def descriptors(self, x: Tensor) -> Tensor:
        """(B, num_descriptors, channels // 4): averages of the values, by weights that sum to one over the positions."""
        return self.gather(x).flatten(2).softmax(2) @ self.value(x).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        descriptors = self.descriptors(x)
        descriptors = descriptors + self.relate(descriptors).relu()
        mixed = torch.einsum('bdhw,bdc->bchw', self.distribute(x).softmax(1), descriptors)
        return x + self.project(mixed)


@arch
class SimpleNet(nn.Module):
    """SimpleNet: piled perceptual variousness blocks with light global context refinement.

    Args:
        width: Channels at the finest scale, a multiple of the number of dilations; each of the two coarser ones doubles them.
        dilations: Dilations of each block's branches.
        num_blocks: Blocks at each of the two finer scales, in the encoder and in the decoder.
        num_groups: Groups of blocks at the coarsest scale, each followed by LGCR.
        group_blocks: Blocks in a group.
        num_descriptors: Global descriptors of each LGCR.

    Shape:
        (B, 3, H, W) in [0, 1], any H and W, to the same; padded by reflection to a multiple of 4.
    """

    size_multiple = 4

    def __init__(self,
                 width: int = 64,
                 dilations: Sequence[int] = (1, 2, 4, 8),
                 num_blocks: int = 2,
                 num_groups: int = 4,
                 group_blocks: int = 4,
                 num_descriptors: int = 16) -> None:
        super().__init__()
        if not dilations or width % len(dilations):
            raise ValueError(f'width must be a multiple of the number of dilations, got {width} and {list(dilations)}.')

        def pile(channels: int, blocks: int) -> list[nn.Module]:
            return [PerceptualVariousnessBlock(channels, dilations) for _ in range(blocks)]

        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.encoder1 = nn.Sequential(*pile(width, num_blocks))
        self.down1 = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.encoder2 = nn.Sequential(*pile(2 * width, num_blocks))
        self.down2 = nn.Conv2d(2 * width, 4 * width, 3, 2, 1)
        self.groups = nn.Sequential(*(
            nn.Sequential(*pile(4 * width, group_blocks), LightGlobalContextRefinement(4 * width, num_descriptors))
            for _ in range(num_groups)))
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1)
        self.decoder2 = nn.Sequential(*pile(2 * width, num_blocks))
        self.up1 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.decoder1 = nn.Sequential(*pile(width, num_blocks))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    @any_size(size_multiple)
    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.encoder1(self.stem(x))
        skip2 = self.encoder2(self.down1(skip1))
        h = self.groups(self.down2(skip2))
        h = self.decoder2(self.up2(h) + skip2)
        h = self.decoder1(self.up1(h) + skip1)
        return x + self.tail(h)
