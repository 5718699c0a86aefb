"""StochasticRefineModel: trains and validates predict-and-refine networks."""

from __future__ import annotations

from typing import Any

from basicsr.losses import build_loss
from torch import Tensor

from ..archs.predict_refine_arch import check_refiner
from ..errors import InputError
from ..inference.operating_point import VALIDATION_KEYS, OperatingPoint
from ..values import NAME, shortened
from .restoration_model import RestorationModel


class StochasticRefineModel(RestorationModel):
    """Predict-and-refine networks (``network_g: {type: PredictRefineNet}``), with the paper's diffusion or with a flow.

    Keys of ``train:``, besides RestorationModel's:
        noise_opt: The objective on the predicted noise, Eq. (6); default ``{type: NoisePredictionLoss}``.
        flow_opt: In its place the objective of ``refiner: flow``; default ``{type: FlowLoss}``.
        initial_opt: Optional pixel loss on the initial prediction. The paper has none; short trainings need it, because the
            gradient through the denoiser alone first makes the prediction worse.

    ``val:`` holds one operating point (``sampler``, ``steps``, ``final_variance``, ``num_samples``, ``average``, ``seed``,
    ``eta``, ``clamp``; a flow's has ``last_time`` and is ``flow_euler`` with 2 steps by default), scored as ``sample``, or
    several under ``operating_points: {name: {...}}``. All are validated in one pass, with the initial prediction, computed
    once, beside them as ``initial``.

    Overridden: the losses and the named results. Inherited: everything else.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.operating_points = operating_points_of(opt.get('val') or {}, is_flow(opt))
        super().__init__(opt)

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        for name, point in operating_points_of(opt.get('val') or {}, is_flow(opt)).items():
            check_refiner(is_flow(opt), point.sampler, f'val: {name}')
        key, other = ('flow_opt', 'noise_opt') if is_flow(opt) else ('noise_opt', 'flow_opt')
        if opt['is_train'] and opt['train'].get(other):
            refiner = 'flow' if is_flow(opt) else 'diffusion'
            raise InputError(f'train: {other} has no meaning for network_g: refiner: {refiner}, '
                             f'whose loss is {key}; rename or remove it.')
        super().check_options(opt)

    @classmethod
    def check_losses(cls, train_opt: dict[str, Any]) -> None:
        for key in ('pixel_opt', 'perceptual_opt'):
            if train_opt.get(key):
                raise InputError(f'train: {key} has no meaning for StochasticRefineModel; the loss on the predicted noise is '
                                 'noise_opt, that on the initial prediction initial_opt.')
        objective = train_opt.get('noise_opt') or train_opt.get('flow_opt') or {'type': 'NoisePredictionLoss'}
        super().check_losses({**train_opt, 'pixel_opt': objective})

    def init_training_settings(self) -> None:
        train_opt = self.opt['train']
        train_opt['pixel_opt'] = train_opt.get('initial_opt')
        super().init_training_settings()
        objective = train_opt.get('flow_opt') or {'type': 'FlowLoss'} if is_flow(self.opt) else \
            train_opt.get('noise_opt') or {'type': 'NoisePredictionLoss'}
        self.cri_refiner = build_loss(objective).to(self.device)

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            output = self.net_g(lq, gt=gt)
        if is_flow(self.opt):
            losses = {'l_flow': self.cri_refiner(output['residual_prediction'], output['residual'], output['weight'])}
        else:
            losses = {'l_noise': self.cri_refiner(output['noise_prediction'], output['noise'], output['noise_level'])}
        if self.cri_pix and 'initial' in output:
            losses['l_initial'] = self.cri_pix(output['initial'], gt)
        return losses

    def checkpoint_metadata(self, net_label: str = 'net_g') -> dict[str, Any]:
        points = {name: point.as_options() for name, point in self.operating_points.items()}
        return {**super().checkpoint_metadata(net_label), 'operating_points': points}

    def restorations(self) -> dict[str, Tensor]:
        restorer = self.restorer()
        initial = restorer.predict(self.lq[0])
        results = {} if initial is None else {'initial': initial[None].clamp(0, 1)}
        for name, point in self.operating_points.items():
            results[name] = restorer.restore(self.lq[0], point, initial=initial).image[None]
        return results


def is_flow(opt: dict[str, Any]) -> bool:
    """Whether the refiner of an options file's network is a flow."""
    return opt['network_g'].get('refiner') == 'flow'


def operating_points_of(val: dict[str, Any], flow: bool = False) -> dict[str, OperatingPoint]:
    """The named operating points of a ``val:`` block, of a flow or a diffusion.

    Raises:
        InputError: If a key or a value is wrong, naming it.
    """
    default = {'sampler': 'flow_euler', 'steps': 2} if flow else {}
    named = val.get('operating_points')
    single = {key: value for key, value in val.items() if key not in VALIDATION_KEYS}
    if named is None:
        return {'sample': OperatingPoint.from_options({**default, **single}, 'val')}
    if single:
        raise InputError(f"val: '{next(iter(single))}' belongs into one of the operating_points, since there are some.")
    if not isinstance(named, dict) or not all(isinstance(options, dict) for options in named.values()):
        raise InputError('val: operating_points must hold named blocks, for example {ours: {sampler: ancestral, steps: 50}}.')
    for name in named:
        if not NAME.fits(name):  # of saved images
            raise InputError(f'val: operating_points: a name must be {NAME.words}, got {shortened(name)}.')
    for name in ('initial', 'input'):
        if name in named:
            raise InputError(f"val: operating_points: '{name}' is the name of the {name}'s own scores; choose another one.")
    return {name: OperatingPoint.from_options({**default, **options}, f'val: operating_points: {name}')
            for name, options in named.items()}
