"""PredictRefineNet: initial predictor and stochastic refiner as one module (Whang et al., CVPR 2022, Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..diffusion import (
    DIFFUSION_SAMPLERS,
    FLOW_SAMPLERS,
    FlowPath,
    FlowSchedule,
    NoiseSchedule,
    SampleNoise,
    conditioning,
    predict_refine_target,
    refine,
    residual,
    to_signed,
)
from ..diffusion.samplers import Denoise
from ..errors import InputError
from .build import arch, build_arch
from .conditioned_denoiser import conditioned_denoiser
from .pretrained import complete_part, load_part
from .sampling import Part, Rules, Run


@arch
class PredictRefineNet(nn.Module):
    """Predict, then refine: ``x = g(y) + r0`` with r0 sampled by a diffusion model conditioned on y.

    One module, so that EMA, DDP, saving and resuming in BasicSR need nothing special.

    Args:
        predictor: Options of g, ``{type: RefineUNet, ...}`` or any other network that maps (B, 3, H, W) in [0, 1] to the same.
            Two more keys: ``pretrained`` loads weights into it, by name or from a file, which tell type and settings too;
            ``frozen: true`` keeps it as loaded. A network itself, of anyone's, is taken as it is and frozen. None leaves g out:
            the diffusion then models the image itself (the paper's non-residual baseline).
        denoiser: Options of f, a noise-conditioned network with 6 input channels; ``pretrained`` is understood too.
        residual_scale: Factor on the residual inside the diffusion; 1 is the paper's. Residuals have a standard deviation
            of some 0.1, so a factor of a few puts more of the noise levels to use; short trainings and few steps profit.
        condition_on_initial: Short for ``condition: lq+initial``.
        sampling: How ``forward(lq)`` samples: any of ``sampler``, ``steps``, ``final_variance``, ``last_time``, ``seed``,
            ``clamp``, ``eta``.
        refiner: ``diffusion`` (the paper's) or ``flow`` (:mod:`stochastic_refine.diffusion.flow`), which starts at the initial
            prediction and whose network predicts the residual itself.
        start_noise: A flow's s, standard deviation of the noise that it starts with, in units of images in [0, 1].
        flow_calls: Number of even steps that a flow is trained for, and samples with, or a divisor of it; None for any.
        condition: What the denoiser sees beside the state: ``lq`` (the paper's; 6 input channels), ``lq+initial`` (9; a small
            denoiser need not work out again what the predictor did), or ``none``, for a flow alone (3; the state is put on the
            initial prediction, as in PMRF, and the network predicts the change that is left).
    """

    def __init__(self,
                 predictor: Mapping[str, Any] | nn.Module | None,
                 denoiser: Mapping[str, Any],
                 residual_scale: float = 1.0,
                 condition_on_initial: bool = False,
                 sampling: Mapping[str, Any] | None = None,
                 refiner: Literal['diffusion', 'flow'] = 'diffusion',
                 start_noise: float = 0.02,
                 condition: Literal['none', 'lq', 'lq+initial'] | None = None,
                 flow_calls: int | None = None) -> None:
        super().__init__()
        if condition is not None and condition_on_initial and condition != 'lq+initial':
            raise ValueError(f'condition_on_initial: true means condition: lq+initial, and condition is {condition}; give one.')
        condition = condition or ('lq+initial' if condition_on_initial else 'lq')
        if predictor is None and refiner == 'flow':
            raise ValueError('refiner: flow starts at the initial prediction and needs a predictor.')
        if predictor is None and condition == 'lq+initial':
            raise ValueError('condition_on_initial needs a predictor.' if condition_on_initial else
                             'condition: lq+initial needs a predictor.')
        if condition == 'none' and refiner != 'flow':
            raise ValueError('condition: none is for refiner: flow; a diffusion of residuals must see the blurred image.')
        if not start_noise > 0:
            raise ValueError(f'start_noise must be above 0, got {start_noise}; without noise all samples are one.')
        if flow_calls is not None and not (refiner == 'flow' and flow_calls >= 1):
            raise ValueError(f'flow_calls is a number of steps from 1 of refiner: flow, got {flow_calls} for {refiner}.')
        if isinstance(predictor, nn.Module):
            self.frozen_predictor, self.predictor = True, predictor
        else:
            self.frozen_predictor = bool((predictor or {}).get('frozen', False))
            self.predictor = None if predictor is None else build_part(predictor, 'predictor')
        self.denoiser = build_part(denoiser, 'denoiser')
        self.residual_scale = residual_scale
        self.condition = condition
        self.rules = self.rules_of({'refiner': refiner, 'flow_calls': flow_calls})
        self.flow = FlowPath(start_noise, residual_scale, flow_calls) if refiner == 'flow' else None
        default = self.rules.default or {'sampler': 'ancestral', 'steps': 50, 'final_variance': 0.1}
        self.sampling = {**default, 'seed': 0, **(sampling or {})}
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

    # ------------------------------------------------------------ sampling, by the restorer (:mod:`.sampling`)

    @classmethod
    def rules_of(cls, options: Mapping[str, Any]) -> Rules:
        if is_flow(options):
            calls = options.get('flow_calls')
            samplers = tuple(FLOW_SAMPLERS) if calls is None else ('flow_euler', )
            return Rules('the refiner is a flow', samplers, {'sampler': 'flow_euler', 'steps': calls or 2}, even_steps=calls)
        return Rules('the refiner is a diffusion', tuple(DIFFUSION_SAMPLERS))

    @property
    def has_initial(self) -> bool:
        return self.predictor is not None

    def trial(self, lq: Tensor) -> list[Tensor]:
        initial = self.predict(lq)
        noise = self.denoise(lq, self.conditioning(lq, initial), lq[:, 0, 0, 0] + 1)
        return [noise] if initial is None else [noise, initial]

    def parts(self, point: Any) -> list[Part]:
        denoiser = Part(self.denoiser, self.denoiser_channels, noise_conditioned=True, calls=point.calls)
        return [denoiser] if self.predictor is None else [Part(self.predictor, per_image=True), denoiser]

    def predict_initial(self, lq: Tensor, run: Run) -> Tensor | None:
        if self.predictor is None:
            return None
        predictor = run.predicting(Part(self.predictor, per_image=True), lq)
        run.start(predictor.calls(*lq.shape[-2:]))
        return predictor(lq).float()

    def begin(self, lq: Tensor, initial: Tensor | None, point: Any, batches: Sequence[range],
              run: Run) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        size, schedule = lq.shape[-2:], point.schedule
        denoiser = run.tiled(self.parts(point)[-1], lq, max(map(len, batches)), sampling=True)
        calls = denoiser.calls(*size) * point.calls * len(batches)
        if initial is None and self.predictor is not None:
            predictor = run.predicting(Part(self.predictor, per_image=True), lq)
            run.start(calls + predictor.calls(*size))
            initial = predictor(lq).float()
        else:
            run.start(calls)
        initial = None if initial is None else initial.contiguous()  # the noise's layout: one for all is faster
        # Feature maps are kept of images that fit as a whole: those of all tiles would grow with the image.
        denoise = conditioned_denoiser(denoiser.net, self.conditioning(lq, initial), schedule, call=denoiser,
                                       share=denoiser.calls(*size) == 1, added=self.added)

        def draw(seeds: range) -> Tensor:
            noise = SampleNoise(seeds, lq.shape[1:], lq.device)
            return self.sample(lq, initial, schedule, noise, denoise, sampler=point.sampler, clamp=point.clamp,
                               **point.sampler_options).clamp_(0, 1)

        return initial, draw

    # ---------------------------------------------------------------- the parts

    @property
    def denoiser_channels(self) -> int:
        """Input channels of the denoiser: the state, and what it sees beside it."""
        return {'none': 3, 'lq': 6, 'lq+initial': 9}[self.condition]

    def conditioning(self, lq: Tensor, initial: Tensor | None) -> Tensor:
        """What the denoiser sees beside the state, (B, 3 or 6, H, W), in [-1, 1]; the initial prediction where it sees nothing,
        since the state is put on that."""
        if self.condition == 'none':
            return to_signed(initial)
        return conditioning(lq, initial if self.condition == 'lq+initial' else None)

    def denoise(self, r_t: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """The predicted noise f(r_t, y, sqrt(alpha_bar)), or of a flow the predicted residual f(z_t, y, t).

        Args:
            r_t: The state, (B, 3, H, W).
            condition: Of :meth:`conditioning`.
            noise_level: sqrt(alpha_bar), which falls as noise grows, or a flow's time t; (B,).
        """
        if self.condition == 'none':
            return r_t + self.denoiser(condition + r_t / self.residual_scale, noise_level).float()
        return self.denoiser(torch.cat([r_t, condition], dim=1), noise_level).float()

    def forward(self, lq: Tensor, gt: Tensor | None = None,
                noisy: tuple[Tensor, Tensor, Tensor | None] | None = None,
                initial: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Restore ``lq``, or with ``gt`` or ``noisy`` return what a loss needs.

        Args:
            lq: Blurry image, (B, 3, H, W), [0, 1].
            gt: Sharp image like ``lq``; given in training only.
            noisy: A state that the caller made, ``(r_t, noise_level, initial)``; given in distillation only.
            initial: The initial prediction where it is at hand already, like ``lq``.

        Returns:
            Without either one sample like ``lq``, the same at each call. With ``gt`` ``{'noise', 'noise_prediction'}``, whose
            difference Eq. (6) minimises, at one random ``'noise_level'`` per image, (B,), and ``'initial'`` if there is a
            predictor; a flow's are ``{'residual', 'residual_prediction', 'weight', 'initial'}``. With ``noisy`` the noise
            predicted in that state.
        """
        if noisy is not None:
            r_t, noise_level, initial = noisy
            return self.denoise(r_t, self.conditioning(lq, initial), noise_level)
        initial = self.predict(lq) if initial is None else initial
        if gt is not None:
            condition = self.conditioning(lq, initial)
            if self.flow is not None:
                r = residual(gt, initial, self.residual_scale)
                z_t, t = self.flow.draw(r)
                return {'residual': r, 'residual_prediction': self.denoise(z_t, condition, t), 'weight': self.flow.weight(t),
                        'initial': initial}
            r_t, noise_level, noise = predict_refine_target(gt, initial, self.train_schedule, self.residual_scale)
            output = {'noise': noise, 'noise_level': noise_level, 'noise_prediction': self.denoise(r_t, condition, noise_level)}
            return output if initial is None else {**output, 'initial': initial}
        options = dict(self.sampling)
        steps, seed = options.pop('steps'), options.pop('seed')
        schedule = FlowSchedule.even(steps, options.pop('last_time', None)) if self.flow is not None else \
            NoiseSchedule.linear(steps, final_variance=options.pop('final_variance'))
        noise = SampleNoise([seed] * lq.shape[0], lq.shape[1:], lq.device)
        if not (self.training and torch.is_grad_enabled()):
            return self.sample(lq, initial, schedule, noise, **options)
        with torch.no_grad():
            restored = self.sample(lq, initial, schedule, noise, **options)
        return _without_gradient(restored)

    def sample(self,
               lq: Tensor,
               initial: Tensor | None,
               schedule: NoiseSchedule | FlowSchedule,
               noise: SampleNoise,
               denoise: Denoise | None = None,
               **options: Any) -> Tensor:
        """Algorithm 1, lines 2 to 7, with this network's settings; see :func:`~stochastic_refine.diffusion.refine`.

        Args:
            lq, initial: Blurry image and initial prediction, (B or 1, 3, H, W), [0, 1].
            schedule: Where the sampler goes.
            noise: Source of all noise.
            denoise: What the sampler calls, if it is at hand already.
            **options: Of :func:`~stochastic_refine.diffusion.refine`: ``sampler``, ``clamp``, ``eta``.

        Returns:
            Restored images, (B, 3, H, W), not clamped.
        """
        if denoise is None:
            denoise = conditioned_denoiser(self.denoiser, self.conditioning(lq, initial), schedule, added=self.added)
        return refine(denoise, initial, schedule, noise, residual_scale=self.residual_scale, flow=self.flow, **options)

    @property
    def added(self) -> float | None:
        """The factor with which the state is added to the condition, where the denoiser sees their sum."""
        return 1 / self.residual_scale if self.condition == 'none' else None


def _without_gradient(restored: Tensor) -> Tensor:
    """Samples whose gradient is refused: a codebase that knows only ``loss(net(lq), gt)`` would train by the wrong objective in
    silence, and through all steps. Whoever wants just that calls :meth:`PredictRefineNet.sample`.
    """

    def refuse(gradient: Tensor) -> None:
        raise InputError('PredictRefineNet was about to be trained by a loss on its samples, which is not its objective; train '
                         'it by the noise loss: model_type: StochasticRefineModel (in a clone after stochastic-refine '
                         'install-into CLONE), or net(lq, gt=gt) in a loop of your own.')

    restored = restored.requires_grad_().clone()
    restored.register_hook(refuse)
    return restored


def is_flow(options: Mapping[str, Any]) -> bool:
    """Whether the refiner of a network with these options is a flow."""
    return options.get('refiner') == 'flow'


def build_part(options: Mapping[str, Any], where: str) -> nn.Module:
    """Build predictor or denoiser, and load its ``pretrained`` weights, which tell type and settings that are not given."""
    options = complete_part(options, where)
    options.pop('frozen', None)
    pretrained = options.pop('pretrained', None)
    net = build_arch(options, where)
    if pretrained:
        load_part(net, pretrained, where)
    return net


def final_output(net: nn.Module, output: Tensor | Sequence[Tensor]) -> Tensor:
    """The restored image among a network's outputs.

    Multi-stage and multi-scale networks return a list; theirs is the last entry, or the one that ``net.output_index`` names.
    """
    return output if isinstance(output, Tensor) else output[getattr(net, 'output_index', -1)]
