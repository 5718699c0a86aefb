"""StochasticRefineModel: trains and validates predict-and-refine networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.losses import build_loss
from torch import Tensor

from ..archs.predict_refine_arch import is_flow
from ..checkpoints.weights_folder import find_weights
from ..data.predictions import origin_in
from ..errors import InputError
from ..files import sha256_of
from .sampling_model import SamplingModel


class StochasticRefineModel(SamplingModel):
    """Predict-and-refine networks (``network_g: {type: PredictRefineNet}``), with the paper's diffusion or with a flow.

    Keys of ``train:``, besides RestorationModel's:
        noise_opt: The objective on the predicted noise, Eq. (6); default ``{type: NoisePredictionLoss}``.
        flow_opt: In its place the objective of ``refiner: flow``; default ``{type: FlowLoss}``.
        initial_opt: Optional pixel loss on the initial prediction. The paper has none; short trainings need it, because the
            gradient through the denoiser alone first makes the prediction worse.

    Keys of an operating point in ``val:`` are ``sampler``, ``steps``, ``final_variance``, ``num_samples``, ``average``,
    ``seed``, ``eta``, ``clamp``; a flow's has ``last_time`` and is ``flow_euler`` with 2 steps by default.

    With ``PredictedImageDataset`` in ``datasets:``, the predictions that it holds stand for those of the predictor, which then
    must be frozen and have the weights that they were made with.

    Overridden: the losses, feeding. Inherited: everything else.
    """

    #: Whether stored predictions are trained on where a data set holds them.
    uses_predictions = True

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        cls.check_operating_points(opt)  # first: whoever mixes up refiners hears of the sampler
        flow = is_flow(opt['network_g'])
        key, other = ('flow_opt', 'noise_opt') if flow else ('noise_opt', 'flow_opt')
        if opt['is_train'] and opt['train'].get(other):
            refiner = 'flow' if flow else 'diffusion'
            raise InputError(f'train: {other} has no meaning for network_g: refiner: {refiner}, '
                             f'whose loss is {key}; rename or remove it.')
        _check_predictions(opt)
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
        objective = train_opt.get('flow_opt') or {'type': 'FlowLoss'} if is_flow(self.opt['network_g']) else \
            train_opt.get('noise_opt') or {'type': 'NoisePredictionLoss'}
        self.cri_refiner = build_loss(objective).to(self.device)

    def feed_data(self, data: dict[str, Any]) -> None:
        super().feed_data(data)
        self.initial = data['initial'].to(self.device) if 'initial' in data else None

    @property
    def batch(self) -> dict[str, Tensor]:
        return super().batch | ({} if self.initial is None else {'initial': self.initial})

    def losses(self, lq: Tensor, gt: Tensor, initial: Tensor | None = None) -> dict[str, Tensor]:
        with self._autocast():
            output = self.net_g(lq, gt=gt, initial=initial)
        if is_flow(self.opt['network_g']):
            losses = {'l_flow': self.cri_refiner(output['residual_prediction'], output['residual'], output['weight'])}
        else:
            losses = {'l_noise': self.cri_refiner(output['noise_prediction'], output['noise'], output['noise_level'])}
        if self.cri_pix and 'initial' in output:
            losses['l_initial'] = self.cri_pix(output['initial'], gt)
        return losses


def _check_predictions(opt: Mapping[str, Any]) -> None:
    """Refuse stored predictions of another predictor than the network's, or of one that learns."""
    predictor = opt['network_g'].get('predictor') or {}
    for name, dataset in (opt.get('datasets') or {}).items():
        if dataset.get('type') != 'PredictedImageDataset':
            continue
        where, folder, weights = f'datasets: {name}', dataset['dataroot_initial'], predictor.get('pretrained')
        if not (weights and predictor.get('frozen')):
            raise InputError(f'{where}: the predictions in {folder} stand for a predictor that stays as it is; give network_g: '
                             'predictor: {pretrained: WEIGHTS, frozen: true}, or use PairedImageDataset.')
        if origin_in(folder).predictor_sha256 != sha256_of(find_weights(weights)):
            raise InputError(f'{where}: the predictions in {folder} were made with other weights than network_g: predictor: '
                             f'pretrained {weights}; make them anew: stochastic-refine prepare predictions.')
