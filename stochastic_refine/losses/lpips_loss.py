"""LPIPS (Zhang et al., CVPR 2018) as a loss, by its authors' package ``lpips``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError, words_of


class LPIPSLoss(nn.Module):
    """Learned perceptual distance of images in [0, 1], averaged over the batch.

    Args:
        loss_weight: Factor on it.
        net: ``vgg`` (as trainings have it), ``alex`` or ``squeeze``.

    Raises:
        InputError: If the package, or torchvision's weights of the network, cannot be had.
    """

    def __init__(self, loss_weight: float = 1.0, net: str = 'vgg') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        try:
            with torch.random.fork_rng(devices=[]):  # a training draws the same numbers with the loss as without
                import lpips
                self.network = lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()
        except ImportError as error:
            raise InputError('LPIPSLoss needs the package lpips, which is not installed; run: pip install lpips.') from error
        except Exception as error:  # without a network torchvision fails in many ways
            raise InputError(f"LPIPSLoss: torchvision's weights of {net} cannot be had ({words_of(error)}); run once where "
                             'there is a network, or copy the file from there into '
                             f'{torch.hub.get_dir()}/checkpoints.') from error

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The weighted distance of (B, 3, H, W) to the target, one number."""
        return self.loss_weight * self.network(2 * pred - 1, 2 * target - 1).mean()
