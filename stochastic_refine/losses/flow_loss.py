"""FlowLoss: the objective of a flow refiner."""

from __future__ import annotations

from torch import Tensor, nn


class FlowLoss(nn.Module):
    """``E [ |r - r_hat(z_t, t)|^p w(t) ]``, the weight being a flow's ``1 / max(1 - t, 0.2)^2`` for squared errors.

    With it, a squared error of the predicted residual counts as one of the velocity, so that late steps, which make the detail,
    learn as fast as early ones.

    Args:
        loss_weight: Factor on the loss.
        norm: ``'l2'``, or ``'l1'`` with the root of the weight.
        weighted: Whether the weight is used; without it samples stay nearer to the initial prediction.
    """

    def __init__(self, loss_weight: float = 1.0, norm: str = 'l2', weighted: bool = True) -> None:
        super().__init__()
        if norm not in ('l1', 'l2'):
            raise ValueError(f"norm must be 'l1' or 'l2', got '{norm}'.")
        self.loss_weight = loss_weight
        self.norm = norm
        self.weighted = weighted

    def forward(self, prediction: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        """The loss, a scalar, of two tensors (B, C, H, W) and their weights (B,)."""
        error = (prediction - residual).abs() if self.norm == 'l1' else (prediction - residual).square()
        if self.weighted:
            error = error * (weight.sqrt() if self.norm == 'l1' else weight)[:, None, None, None]
        return self.loss_weight * error.mean()
