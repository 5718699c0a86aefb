"""BSRNet (Zhang et al., ICCV 2021): ESRGAN's network at four times the size, one of DiffBIR's first stages.

DiffBIR's two others need nothing here: ``SpandrelNet`` has them as ``SwinIR`` (with ``start_unshuffle: 8``) and ``SCUNet``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.build import arch


@arch
class BSRNet(nn.Module):
    """BasicSR's ``RRDBNet`` at four times the size; the result is brought back to the image's size (bicubic, antialiased).

    Args:
        num_feat, num_block, num_grow_ch: Of ``RRDBNet``.

    Shape:
        (B, 3, H, W) in [0, 1] to the same.
    """

    def __init__(self, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32) -> None:
        super().__init__()
        from ...registration import prepare_basicsr
        prepare_basicsr()
        from basicsr.archs.rrdbnet_arch import RRDBNet
        self.net = RRDBNet(3, 3, scale=4, num_feat=num_feat, num_block=num_block, num_grow_ch=num_grow_ch)
        #: 15 convolutions a block, 2 at the image's size, 4 at 2 or 4 times it, and the reach of the filter that reduces.
        self.tile_halo = 15 * num_block + 2 + 2 + 2

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.net(x), size=x.shape[-2:], mode='bicubic', antialias=True)
