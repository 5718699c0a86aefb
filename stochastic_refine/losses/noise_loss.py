"""NoisePredictionLoss: the objective of Eq. (6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class NoisePredictionLoss(nn.Module):
    """Eq. (6): ``E || eps - f(r_t, alpha_bar, y) ||``, the norm being L1 in the paper.

    Args:
        loss_weight: Factor on the loss.
        norm: ``'l1'`` (the paper) or ``'l2'``.
        reduction: ``'mean'`` or ``'sum'`` over all elements.
    """

    def __init__(self, loss_weight: float = 1.0, norm: str = 'l1', reduction: str = 'mean') -> None:
        super().__init__()
        if norm not in ('l1', 'l2'):
            raise ValueError(f"norm must be 'l1' or 'l2', got '{norm}'.")
        self.loss_weight = loss_weight
        self.loss = F.l1_loss if norm == 'l1' else F.mse_loss
        self.reduction = reduction

    def forward(self, noise_prediction: Tensor, noise: Tensor) -> Tensor:
        """The loss, a scalar, of two tensors of one shape (B, C, H, W)."""
        return self.loss_weight * self.loss(noise_prediction, noise, reduction=self.reduction)
