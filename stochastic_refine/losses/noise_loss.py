"""NoisePredictionLoss: the objective of Eq. (6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class NoisePredictionLoss(nn.Module):
    """Eq. (6): ``E || eps - f(r_t, alpha_bar, y) ||``, the norm being L1 in the paper.

    With L2 the network learns a mean where L1 makes it learn a median. Residuals are mostly near zero with few large values,
    whose median is nearer to zero than their mean, so that samples of a network trained with L1 spread too little.

    Args:
        loss_weight: Factor on the loss.
        norm: ``'l1'`` (the paper) or ``'l2'``.
        reduction: ``'mean'`` or ``'sum'`` over all elements.
        weight_limit: 1 is the paper's, the same weight at all noise levels. Above, an error counts ``1 / sqrt(alpha_bar)``
            fold, as if the network predicted the velocity of Salimans and Ho (ICLR 2022, Appendix D), which differs by just
            this factor; squared with L2, and never more than this limit. At strong noise, where a sample's large features are
            decided, the unweighted loss is almost silent.
    """

    def __init__(self, loss_weight: float = 1.0, norm: str = 'l1', reduction: str = 'mean', weight_limit: float = 1.0) -> None:
        super().__init__()
        if norm not in ('l1', 'l2'):
            raise ValueError(f"norm must be 'l1' or 'l2', got '{norm}'.")
        if not weight_limit >= 1:
            raise ValueError(f'weight_limit must be at least 1 (the same weight at all noise levels), got {weight_limit}.')
        self.loss_weight = loss_weight
        self.norm = norm
        self.reduction = reduction
        self.weight_limit = weight_limit

    def forward(self, noise_prediction: Tensor, noise: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of two tensors of one shape (B, C, H, W).

        ``noise_level`` is sqrt(alpha_bar), (B,); needed with a ``weight_limit`` above 1 only.
        """
        loss = (F.l1_loss if self.norm == 'l1' else F.mse_loss)(noise_prediction, noise, reduction='none')
        if self.weight_limit > 1:
            weight = noise_level**(-1 if self.norm == 'l1' else -2)
            loss = loss * weight.clamp(max=self.weight_limit)[:, None, None, None]
        return self.loss_weight * (loss.mean() if self.reduction == 'mean' else loss.sum())
