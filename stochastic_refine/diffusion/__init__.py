"""Residual diffusion in pure PyTorch: schedules, forward process, samplers and the predict-and-refine target."""

from .predict_refine import conditioning, predict_refine_target, refine
from .process import eps_from_r0, forward_marginal, posterior, r0_from_eps
from .samplers import SAMPLERS, SampleNoise, ancestral, ddim, dpmpp_2m
from .schedules import NoiseSchedule, draw_alpha_bar

__all__ = [
    'SAMPLERS', 'NoiseSchedule', 'SampleNoise', 'ancestral', 'conditioning', 'ddim', 'dpmpp_2m', 'draw_alpha_bar', 'eps_from_r0',
    'forward_marginal', 'posterior', 'predict_refine_target', 'r0_from_eps', 'refine'
]
