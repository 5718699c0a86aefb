"""Residual diffusion in pure PyTorch: schedules, forward process, samplers and the predict-and-refine target."""

from .distillation import distillation_target, student_r0
from .predict_refine import conditioning, predict_refine_target, refine
from .process import eps_from_r0, forward_marginal, posterior, r0_from_eps
from .samplers import SAMPLERS, TAKE_ETA, SampleNoise, ancestral, ddim, dpmpp_2m
from .schedules import NoiseSchedule, draw_alpha_bar

__all__ = [
    'SAMPLERS', 'TAKE_ETA', 'NoiseSchedule', 'SampleNoise', 'ancestral', 'conditioning', 'ddim', 'distillation_target',
    'dpmpp_2m', 'draw_alpha_bar', 'eps_from_r0', 'forward_marginal', 'posterior', 'predict_refine_target', 'r0_from_eps',
    'refine', 'student_r0'
]
