"""The registries of scope ``stochastic_refine``, children of mmengine's: networks and losses by the names of options files."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine import registry
from mmengine.registry import Registry
from torch import Tensor, nn

from ...archs import ARCHS
from ...losses.flow_loss import FlowLoss
from ...losses.noise_loss import NoisePredictionLoss

# One for each of mmengine's, which otherwise warns of every registry that lacks the scope.
_CHILDREN = {name: Registry(parent.name, parent=parent, scope='stochastic_refine', locations=[__package__])
             for name, parent in vars(registry).items() if isinstance(parent, Registry)}
MODELS, DATASETS, METRICS, HOOKS, DATA_SAMPLERS = (
    _CHILDREN[name] for name in ('MODELS', 'DATASETS', 'METRICS', 'HOOKS', 'DATA_SAMPLERS'))

for _item in (*ARCHS.values(), NoisePredictionLoss, FlowLoss):
    MODELS.register_module(module=_item)


class _PixelLoss(nn.Module):
    """Mean (or with ``reduction='sum'`` the sum) of a difference's norm, times ``loss_weight``."""

    norm = staticmethod(F.l1_loss)

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.loss_weight * self.norm(prediction, target, reduction=self.reduction)


@MODELS.register_module()
class L1Loss(_PixelLoss):
    """Absolute error."""


@MODELS.register_module()
class MSELoss(_PixelLoss):
    """Squared error."""

    norm = staticmethod(F.mse_loss)
