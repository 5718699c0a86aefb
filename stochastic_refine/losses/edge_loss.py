"""EdgeLoss, and CharbonnierEdgeLoss: the objective of MPRNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EdgeLoss(nn.Module):
    """Charbonnier loss between Laplacians: ``sum_k mean sqrt((L x_k - L y)^2 + eps)`` over outputs k.

    ``L x = x - G U D G x``: Gaussian filter G, D keeps every second row and column, U puts them back between zeros, times 4.

    Args:
        loss_weight: Factor on the loss.
        eps: Added under the root.
    """

    #: The model hands over all the outputs of a network that has several, not only the restored image.
    all_outputs = True

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.eps = eps
        taps = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])
        self.register_buffer('gaussian', torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar, of one output or several of the target's shape (B, C, H, W)."""
        outputs = [pred] if isinstance(pred, Tensor) else pred
        return self.loss_weight * sum(self.penalty(output - target) for output in outputs)

    def penalty(self, difference: Tensor) -> Tensor:
        """The unweighted loss of one output, from its difference to the target; the Laplacian is linear."""
        x = difference.flatten(0, 1)[:, None]  # each channel is an image of its own
        coarse = torch.zeros_like(x)
        coarse[..., ::2, ::2] = 4 * self._blur(x)[..., ::2, ::2]
        return ((x - self._blur(coarse)).square() + self.eps).sqrt().mean()

    def _blur(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode='replicate'), self.gaussian)


class CharbonnierEdgeLoss(EdgeLoss):
    """MPRNet's ``sum_k mean sqrt((x_k - y)^2 + eps) + edge_weight * EdgeLoss_k``, times ``loss_weight``, over stages k."""

    def __init__(self, loss_weight: float = 1.0, edge_weight: float = 0.05, eps: float = 1e-6) -> None:
        super().__init__(loss_weight, eps)
        self.edge_weight = edge_weight

    def penalty(self, difference: Tensor) -> Tensor:
        return (difference.square() + self.eps).sqrt().mean() + self.edge_weight * super().penalty(difference)
