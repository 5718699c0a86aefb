"""ProgressiveDistillationModel: trains predict-and-refine networks to sample in a few steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor

from ..archs.predict_refine_arch import PredictRefineNet, is_flow
from ..diffusion import distillation_target
from ..errors import InputError
from ..inference.operating_point import VALIDATION_KEYS, OperatingPoint
from .stochastic_refine_model import StochasticRefineModel

_EXAMPLE = '{steps: [8, 4, 2, 1], iterations: [2000, 2000, 2000], final_variance: 0.5}'


@dataclass(frozen=True)
class Distillation:
    """The stages of a progressive distillation.

    Args:
        points: Where the first teacher, and then each stage's student, is sampled.
        iterations: Of each stage.
    """

    points: tuple[OperatingPoint, ...]
    iterations: tuple[int, ...]

    @classmethod
    def from_options(cls, train_opt: Mapping[str, Any]) -> Distillation:
        """The stages that ``train: distillation:`` describes.

        Raises:
            InputError: If a key is missing or wrong, or the stages do not last until ``total_iter``.
        """
        options, where = train_opt.get('distillation'), 'train: distillation'
        if not isinstance(options, Mapping) or not all(_is_counts(options.get(key)) for key in ('steps', 'iterations')):
            raise InputError(f'{where} must be a block with lists of whole numbers, for example {_EXAMPLE}.')
        settings = {key: value for key, value in options.items() if key not in ('steps', 'iterations')}
        if 'sampler' in settings or settings.get('eta'):
            raise InputError(f'{where}: teacher and students are sampled by ddim with eta 0; remove sampler and eta.')
        steps, iterations = tuple(options['steps']), tuple(options['iterations'])
        for teacher, student in zip(steps, steps[1:]):
            if student >= teacher or teacher % student:
                raise InputError(f'{where}: steps must fall, each dividing the one before it, but {student} follows {teacher}.')
        if len(steps) != len(iterations) + 1:
            raise InputError(f"{where}: steps are the teacher's and one number for each stage, but there are {len(steps)} for "
                             f'{len(iterations)} iterations.')
        if sum(iterations) != train_opt['total_iter']:
            raise InputError(f'{where}: the iterations add up to {sum(iterations)}, not to total_iter '
                             f"{train_opt['total_iter']}; change one or the other.")
        settings = {'sampler': 'ddim', 'grid_steps': steps[0], **settings}
        points = [OperatingPoint.from_options({**settings, 'steps': count}, where) for count in steps]
        return cls(tuple(points), iterations)

    @property
    def ends(self) -> list[int]:
        """The last iteration of each stage."""
        return list(accumulate(self.iterations))

    def stage(self, iteration: int) -> int:
        """Index of the stage that an iteration, counted from 1, belongs to."""
        return sum(iteration > end for end in self.ends[:-1])


class ProgressiveDistillationModel(StochasticRefineModel):
    """Progressive distillation (Salimans and Ho, ICLR 2022): a student learns to do in one step what its teacher does in some.

    The first teacher is the loaded network (``path: pretrain_network_g``, with ``param_key_g: params_ema``), sampled by DDIM;
    each later one is the averaged student before it. A student starts as its teacher. All share the predictor, which is frozen.

    Keys of ``train:``, besides StochasticRefineModel's:
        distillation: ``steps``, the first teacher's number of steps and each student's; ``iterations`` of each stage, which add
            up to ``total_iter``; and any other setting of an operating point. Of these, ``final_variance`` and ``clamp`` shape
            the teacher; its levels are those of a schedule of so many steps, or every few of those of ``grid_steps``. A student
            visits every few of its teacher's.
        noise_opt: The loss between the noise that leads in one step to where the teacher's steps lead, and the prediction, both
            weighted as :func:`~stochastic_refine.diffusion.distillation_target` says; default
            ``{type: NoisePredictionLoss, norm: l2}``.

    Optimizer and average start anew with each stage, and so should the learning rate: ``{type: CosineAnnealingRestartLR,
    periods: <iterations>, restart_weights: [1, 1, 1]}``. Each student is saved at the end of its stage. Its checkpoints hold
    its operating point, ``distilled_<steps>``, which is also what validation scores.

    Overridden: the losses, the operating points, and what stages take in training, saving and resuming. Inherited: everything
    else.
    """

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        super().check_options(opt)
        if not opt['is_train']:
            return
        if is_flow(opt['network_g']):
            raise InputError('network_g: refiner: a flow needs no distillation, since it samples in one or two calls already; '
                             'distil a diffusion, or train the flow with StochasticRefineModel.')
        predictor, denoiser = (opt['network_g'].get(key) or {} for key in ('predictor', 'denoiser'))
        if predictor and not predictor.get('frozen'):
            raise InputError('network_g: predictor: teacher and student share it, so it needs frozen: true in a distillation.')
        if not opt['path'].get('pretrain_network_g') and not denoiser.get('pretrained'):
            raise InputError('path: a distillation needs pretrain_network_g, the checkpoint of the first teacher.')
        for key in opt.get('val') or {}:
            if key not in VALIDATION_KEYS - {'operating_points'}:
                raise InputError(f'val: a distillation validates each student at its own steps; remove {key}.')

    @classmethod
    def check_losses(cls, train_opt: dict[str, Any]) -> None:
        super().check_losses(train_opt)
        if train_opt.get('initial_opt'):
            raise InputError('train: initial_opt has no meaning in a distillation, whose predictor is frozen; remove it.')
        if (train_opt.get('noise_opt') or {}).get('weight_limit', 1) != 1:
            raise InputError('train: noise_opt: weight_limit has no meaning in a distillation, which has a weight of its own; '
                             'remove it.')
        Distillation.from_options(train_opt)

    # ---------------------------------------------------------------- stages

    def init_training_settings(self) -> None:
        train_opt = self.opt['train']
        train_opt['noise_opt'] = train_opt.get('noise_opt') or {'type': 'NoisePredictionLoss', 'norm': 'l2'}
        self.distillation = Distillation.from_options(train_opt)
        net: PredictRefineNet = self.get_bare_model(self.net_g)
        self.teacher = copy.deepcopy(net, {id(net.predictor): net.predictor}).eval().requires_grad_(False)
        super().init_training_settings()
        self._enter(0)

    def _enter(self, stage: int) -> None:
        """Make a stage the current one."""
        self.stage = stage
        teacher, student = self.distillation.points[stage:stage + 2]
        self.stride = teacher.steps // student.steps
        self.teacher_point, self.operating_points = teacher, {f'distilled_{student.steps}': student}

    def optimize_parameters(self, current_iter: int) -> None:
        stage = self.distillation.stage(current_iter)
        if stage > self.stage:
            self._promote_student()
            self._enter(stage)
            get_root_logger().info(f'Distillation, stage {stage + 1}: one step for {self.stride} of the last student.')
        super().optimize_parameters(current_iter)
        if current_iter in self.distillation.ends:
            self.save_within_iteration(current_iter)

    def _promote_student(self) -> None:
        """Make the averaged student the teacher, and the new student's first weights."""
        student = self.get_bare_model(self.net_g)
        weights = getattr(self, 'net_g_ema', student).state_dict()
        self.teacher.load_state_dict(weights)
        student.load_state_dict(weights)
        self.optimizer_g.state.clear()

    def training_state(self, epoch: int, current_iter: int) -> dict[str, Any]:
        return {**super().training_state(epoch, current_iter), 'teacher': self.teacher.denoiser.state_dict()}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        super().resume_training(resume_state)
        if 'teacher' not in resume_state:
            raise InputError(f"The training state {self.opt['path']['resume_state']} holds no teacher, so it is not one of a "
                             'distillation; start anew without resuming.')
        self._enter(self.distillation.stage(resume_state['iter']))
        self.teacher.denoiser.load_state_dict(resume_state['teacher'])

    # ---------------------------------------------------------------- one iteration

    def losses(self, lq: Tensor, gt: Tensor, initial: Tensor | None = None) -> dict[str, Tensor]:
        teacher, point = self.teacher, self.teacher_point
        with self._autocast():
            with torch.no_grad():
                initial = teacher.predict(lq) if initial is None else initial
            condition = teacher.conditioning(lq, initial)
            r_t, noise_level, noise, weight = distillation_target(
                lambda state, level: teacher.denoise(state, condition, level), gt, initial, point.schedule, self.stride,
                point.clamp, teacher.residual_scale)
            prediction = self.net_g(lq, noisy=(r_t, noise_level, initial))
        return {'l_noise': self.cri_refiner(weight * prediction, weight * noise)}


def _is_counts(value: Any) -> bool:
    """Whether it is a list of whole numbers from 1, not empty."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(type(item) is int and item >= 1 for item in value)
