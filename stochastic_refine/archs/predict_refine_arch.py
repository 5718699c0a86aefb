"""PredictRefineNet: initial predictor and residual denoiser as one module (Whang et al., CVPR 2022, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load_weights, read_checkpoint
from ..diffusion import NoiseSchedule, SampleNoise, conditioning, predict_refine_target, refine
from .build import arch, build_arch


@arch
class PredictRefineNet(nn.Module):
    """Predict, then refine: ``x = g(y) + r0`` with r0 sampled by a diffusion model conditioned on y.

    One module, so that EMA, DDP, saving and resuming in BasicSR need nothing special.

    Args:
        predictor: Options of g, ``{type: RefineUNet, ...}`` or any other network that maps (B, 3, H, W) in [0, 1] to the same.
            Two more keys: ``pretrained`` loads a checkpoint into it, ``frozen: true`` keeps it as loaded. None leaves g out:
            the diffusion then models the image itself (the paper's non-residual baseline).
        denoiser: Options of f, a noise-conditioned network with 6 input channels; ``pretrained`` is understood too.
        residual_scale: Factor on the residual inside the diffusion; 1 is the paper's. Residuals have a standard deviation
            of some 0.1, so a factor of a few puts more of the noise levels to use; short trainings and few steps profit.
        condition_on_initial: Show the denoiser the initial prediction too, which then has 9 input channels. Off in the paper;
            a small denoiser need not work out again what the predictor did.
        sampling: How ``forward(lq)`` samples: any of ``sampler``, ``steps``, ``final_variance``, ``seed``, ``clamp``, ``eta``.
    """

    def __init__(self,
                 predictor: Mapping[str, Any] | None,
                 denoiser: Mapping[str, Any],
                 residual_scale: float = 1.0,
                 condition_on_initial: bool = False,
                 sampling: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.frozen_predictor = bool((predictor or {}).get('frozen', False))
        self.predictor = None if predictor is None else _build_part(predictor, 'predictor')
        self.denoiser = _build_part(denoiser, 'denoiser')
        if condition_on_initial and predictor is None:
            raise ValueError('condition_on_initial needs a predictor.')
        self.residual_scale = residual_scale
        self.condition_on_initial = condition_on_initial
        self.sampling = {'sampler': 'ancestral', 'steps': 50, 'final_variance': 0.1, 'seed': 0, **(sampling or {})}
        self.train_schedule = NoiseSchedule.training()
        if self.frozen_predictor:
            self.predictor.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PredictRefineNet:
        """Switch mode as usual, except that a frozen predictor stays in evaluation mode."""
        super().train(mode)
        if self.frozen_predictor:
            self.predictor.eval()
        return self

    def predict(self, lq: Tensor) -> Tensor | None:
        """The initial prediction g(y), (B, 3, H, W), [0, 1] up to overshoot; None without a predictor."""
        if self.predictor is None:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_predictor):
            return final_output(self.predictor, self.predictor(lq)).float()

    def denoise(self, r_t: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """The predicted noise f(r_t, y, sqrt(alpha_bar)); ``condition`` in [-1, 1], ``noise_level`` (B,)."""
        return self.denoiser(torch.cat([r_t, condition], dim=1), noise_level).float()

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Restore ``lq``, or with ``gt`` return what the loss needs.

        Args:
            lq: Blurry image, (B, 3, H, W), [0, 1].
            gt: Sharp image like ``lq``; given in training only.

        Returns:
            Without ``gt`` one sample like ``lq``, the same at each call. With it ``{'noise', 'noise_prediction'}`` for one
            random noise level per image, whose difference Eq. (6) minimises, and ``'initial'`` if there is a predictor.
        """
        initial = self.predict(lq)
        if gt is not None:
            r_t, noise_level, noise = predict_refine_target(gt, initial, self.train_schedule, self.residual_scale)
            condition = conditioning(lq, initial if self.condition_on_initial else None)
            output = {'noise': noise, 'noise_prediction': self.denoise(r_t, condition, noise_level)}
            return output if initial is None else {**output, 'initial': initial}
        options = dict(self.sampling)
        schedule = NoiseSchedule.linear(options.pop('steps'), final_variance=options.pop('final_variance'))
        noise = SampleNoise([options.pop('seed')] * lq.shape[0], lq.shape[1:], lq.device)
        return refine(self.denoise, lq, initial, schedule, noise, residual_scale=self.residual_scale,
                      condition_on_initial=self.condition_on_initial, **options)


def _build_part(options: Mapping[str, Any], where: str) -> nn.Module:
    """Build predictor or denoiser, and load its ``pretrained`` checkpoint."""
    options = dict(options)
    options.pop('frozen', None)
    pretrained = options.pop('pretrained', None)
    net = build_arch(options, where)
    if pretrained:
        load_weights(net, read_checkpoint(pretrained).params, f'{where}: {pretrained}')
    return net


def final_output(net: nn.Module, output: Tensor | Sequence[Tensor]) -> Tensor:
    """The restored image among a network's outputs.

    Multi-stage and multi-scale networks return a list; theirs is the last entry, or the one that ``net.output_index`` names.
    """
    return output if isinstance(output, Tensor) else output[getattr(net, 'output_index', -1)]
