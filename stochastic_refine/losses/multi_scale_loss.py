"""MultiScaleLoss: the objective of MIMO-UNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiScaleLoss(nn.Module):
    """L1 of images and of their spectra: ``sum_k mean|x_k - y_k| + fft_weight * mean|F x_k - F y_k|``, over outputs k.

    Output k may have any size; ``y_k`` is the target resized to it bilinearly. ``F`` is the two-sided FFT without
    normalisation; real and imaginary parts count as numbers of their own. With one output of full size it is the loss of
    FFTformer and EVSSM.

    Args:
        loss_weight: Factor on the loss.
        fft_weight: Weight of the spectra.
    """

    #: The model hands over all the outputs of a network that has several, not only the restored image.
    all_outputs = True

    def __init__(self, loss_weight: float = 1.0, fft_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.fft_weight = fft_weight

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar, of outputs (B, C, h, w) for a target (B, C, H, W)."""
        loss = 0
        for output in [pred] if isinstance(pred, Tensor) else pred:
            scaled = F.interpolate(target, size=output.shape[-2:], mode='bilinear', align_corners=False)
            difference = output - scaled
            spectrum = torch.view_as_real(torch.fft.fft2(difference))
            loss = loss + difference.abs().mean() + self.fft_weight * spectrum.abs().mean()
        return self.loss_weight * loss
