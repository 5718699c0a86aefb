"""Residual diffusion and flow in pure PyTorch: schedules, processes, samplers and the predict-and-refine target."""

from .distillation import distillation_target, student_r0
from .flow import FLOW_SAMPLERS, FlowPath, FlowSchedule, flow_euler, flow_heun
from .predict_refine import SAMPLERS, conditioning, predict_refine_target, recompose, refine, residual, to_signed
from .process import eps_from_r0, forward_marginal, posterior, r0_from_eps, r0_from_v, v_target
from .samplers import DIFFUSION_SAMPLERS, TAKE_ETA, SampleNoise, ancestral, ddim, dpmpp_2m
from .schedules import NoiseSchedule, draw_alpha_bar

__all__ = [
    'DIFFUSION_SAMPLERS', 'FLOW_SAMPLERS', 'SAMPLERS', 'TAKE_ETA', 'FlowPath', 'FlowSchedule', 'NoiseSchedule', 'SampleNoise',
    'ancestral', 'conditioning', 'ddim', 'distillation_target', 'dpmpp_2m', 'draw_alpha_bar', 'eps_from_r0', 'flow_euler',
    'flow_heun', 'forward_marginal', 'posterior', 'predict_refine_target', 'r0_from_eps', 'r0_from_v', 'recompose', 'refine',
    'residual', 'student_r0', 'to_signed', 'v_target'
]
