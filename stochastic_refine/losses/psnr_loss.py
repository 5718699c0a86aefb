"""PSNRLoss: the objective of HINet and NAFNet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class PSNRLoss(nn.Module):
    """The negative PSNR: ``sum_k mean_b 10 / ln(10) ln(MSE(x_kb, y_b) + 1e-8)`` over outputs k and images b, for a peak of 1.

    Args:
        loss_weight: Factor on the loss; 0.5 for HINet, 1 for NAFNet.
        reduction: Only ``'mean'``, which the authors' options files name.
    """

    #: The model hands over all the outputs of a network that has several, not only the restored image.
    all_outputs = True

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean') -> None:
        super().__init__()
        if reduction != 'mean':
            raise ValueError(f"reduction must be 'mean', got '{reduction}'.")
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar in dB times the weight; output or outputs and target are (B, C, H, W) in [0, 1]."""
        outputs = [pred] if isinstance(pred, Tensor) else pred
        logs = [((output - target).square().mean((1, 2, 3)) + 1e-8).log().mean() for output in outputs]
        return self.loss_weight * 10 / math.log(10) * sum(logs)
