"""PredictRefineNet: initial predictor and residual denoiser as one module (Whang et al., CVPR 2022, Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load_weights, read_checkpoint
from ..diffusion import NoiseSchedule, SampleNoise, conditioning, predict_refine_target, refine
from ..diffusion.samplers import Denoise, noise_levels
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

    def forward(self, lq: Tensor, gt: Tensor | None = None,
                noisy: tuple[Tensor, Tensor, Tensor | None] | None = None) -> Tensor | dict[str, Tensor]:
        """Restore ``lq``, or with ``gt`` or ``noisy`` return what a loss needs.

        Args:
            lq: Blurry image, (B, 3, H, W), [0, 1].
            gt: Sharp image like ``lq``; given in training only.
            noisy: A state that the caller made, ``(r_t, noise_level, initial)``; given in distillation only.

        Returns:
            Without either one sample like ``lq``, the same at each call. With ``gt`` ``{'noise', 'noise_prediction'}``, whose
            difference Eq. (6) minimises, at one random ``'noise_level'`` per image, (B,), and ``'initial'`` if there is a
            predictor. With ``noisy`` the noise predicted in that state.
        """
        if noisy is not None:
            r_t, noise_level, initial = noisy
            return self.denoise(r_t, conditioning(lq, initial if self.condition_on_initial else None), noise_level)
        initial = self.predict(lq)
        if gt is not None:
            r_t, noise_level, noise = predict_refine_target(gt, initial, self.train_schedule, self.residual_scale)
            condition = conditioning(lq, initial if self.condition_on_initial else None)
            output = {'noise': noise, 'noise_level': noise_level, 'noise_prediction': self.denoise(r_t, condition, noise_level)}
            return output if initial is None else {**output, 'initial': initial}
        options = dict(self.sampling)
        schedule = NoiseSchedule.linear(options.pop('steps'), final_variance=options.pop('final_variance'))
        noise = SampleNoise([options.pop('seed')] * lq.shape[0], lq.shape[1:], lq.device)
        condition = conditioning(lq, initial if self.condition_on_initial else None)
        denoise = conditioned_denoiser(self.denoiser, condition, schedule)
        return refine(denoise, initial, schedule, noise, residual_scale=self.residual_scale, **options)


def conditioned_denoiser(denoiser: nn.Module,
                         condition: Tensor,
                         schedule: NoiseSchedule,
                         call: Callable[..., Tensor] | None = None,
                         share: bool = True) -> Denoise:
    """What a sampler calls to denoise one image, or a batch of them.

    A network with a method ``prepare_denoising``, as :class:`RefineUNet` has, computes here, once for all steps and samples,
    what does not depend on the noisy residual. Any other network is called with all its input at every step.

    Args:
        denoiser: A network that maps (B, C, H, W) and noise levels (B,) to the predicted noise.
        condition: Its last input channels, of :func:`~stochastic_refine.diffusion.predict_refine.conditioning`: one per sample,
            or one for all, (1, C, H, W).
        schedule: The levels that it will be called at.
        call: Calls it on a list of tensors, concatenated to its input channels, and the other arguments; default: as it is.
        share: Whether the condition's share of the first convolution, a feature map, may be kept.
    """
    steps = None
    if hasattr(denoiser, 'prepare_denoising'):
        steps = denoiser.prepare_denoising(noise_levels(schedule), condition if share else None)

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        inputs = [r_t] if steps and share else [r_t, condition.expand(len(r_t), -1, -1, -1)]
        level = (None, steps[noise_level]) if steps else (torch.full((len(r_t), ), noise_level, device=r_t.device), )
        eps = call(inputs, *level) if call else denoiser(torch.cat(inputs, dim=1), *level)
        return eps.to(torch.float32, memory_format=torch.contiguous_format)  # the noise's layout: one for all is faster

    return denoise


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
