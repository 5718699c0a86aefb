"""StochasticRefine: a predict-and-refine network as mmengine's model, and the preprocessor for images in 0..255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ...archs.build import build_arch, without_pretrained
from ...archs.predict_refine_arch import PredictRefineNet
from ...archs.pretrained import check_weights, complete_options, read_weights
from ...checkpoints.weights_folder import find_weights
from ...errors import InputError
from ...inference.operating_point import operating_points_of
from ...inference.restorer import Restorer
from ...values import nearest
from .registry import MODELS

#: A data sample, MMagic's or mmengine's; one for each image, or one for all with stacked images.
Samples = Sequence[BaseDataElement] | BaseDataElement
#: Images in [0, 1] may overshoot by so much.
_HIGHEST = 1.5
_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@MODELS.register_module()
class StochasticRefine(BaseModel):
    """Predict-and-refine networks, with the paper's diffusion or with a flow; what ``StochasticRefineModel`` is in BasicSR.

    Args:
        net: ``dict(type='PredictRefineNet', ...)``.
        objective: The refiner's loss; by default ``dict(type='NoisePredictionLoss')``, Eq. (6), or a flow's ``FlowLoss``.
        initial_loss: Optional pixel loss on the initial prediction; the paper has none, short trainings need one.
        pretrained: Weights to start from, by name or from a file, BasicSR's checkpoints and mmengine's alike.
        operating_points: ``[dict(name=NAME, sampler=..., steps=...)]``, written into checkpoints; the first one is validated. A
            list, because mmengine sorts the keys of the configs that it writes.
        precision: ``'bfloat16'`` for autocast, which works on CPUs too, unlike mmengine's AmpOptimWrapper.
        data_preprocessor: None for images in [0, 1], RGB; :class:`DataPreprocessor` for others, MMagic's does too.
        init_cfg: mmengine's.
    """

    def __init__(self,
                 net: Mapping[str, Any],
                 objective: Mapping[str, Any] | None = None,
                 initial_loss: Mapping[str, Any] | None = None,
                 pretrained: str | None = None,
                 operating_points: Sequence[Mapping[str, Any]] | None = None,
                 precision: str = 'float32',
                 data_preprocessor: Any = None,
                 init_cfg: Any = None) -> None:
        if isinstance(data_preprocessor, Mapping):
            data_preprocessor = _built(data_preprocessor, 'data_preprocessor')
        super().__init__(data_preprocessor, init_cfg)
        options = complete_options(_plain(net), 'net')
        if options.get('type') != PredictRefineNet.__name__:
            raise InputError(f"net: StochasticRefine trains PredictRefineNet by the noise loss, got {options.get('type')}; "
                             "train other networks by a pixel loss, with another model.")
        if precision not in _DTYPES:
            raise InputError(f"precision must be float32 or bfloat16, got '{precision}'.")
        self.net = build_arch(options, 'net')
        self.options = without_pretrained(options)
        self.precision = precision
        is_flow = self.net.flow is not None
        self.objective = _built(objective or {'type': 'FlowLoss' if is_flow else 'NoisePredictionLoss'}, 'objective')
        self.initial_loss = None if initial_loss is None else _built(initial_loss, 'initial_loss')
        self.operating_points = operating_points_of(_named(operating_points), self.net.rules)
        for name, point in self.operating_points.items():
            self.net.rules.check(point, f'operating_points: {name}')
        if pretrained is not None:
            checkpoint = read_weights(find_weights(pretrained))
            check_weights(self.net, checkpoint, pretrained)
            self.net.load_state_dict(checkpoint.params)
        self._ranges_checked = False

    def forward(self, inputs: Tensor | Sequence[Tensor] | Mapping[str, Any], data_samples: Samples | None = None,
                mode: str = 'tensor') -> dict[str, Tensor] | list[BaseDataElement] | Tensor:
        """Losses, predictions, or images.

        Args:
            inputs: Blurred images, RGB in [0, 1]: (B, 3, H, W), a list of (3, H, W), or either under ``img``.
            data_samples: With the sharp images under ``gt_img``; one sample for each image, or one with all of them stacked.
            mode: ``'loss'``: named losses, which mmengine adds up. ``'predict'``: the samples, one for each image, with the
                restored one under ``output.pred_img``, of the data's own range. ``'tensor'``: restored images, (B, 3, H, W).
        """
        if isinstance(inputs, Mapping):
            inputs = inputs['img']
        if mode == 'loss':
            return self._losses(_stacked(inputs), _stacked(_sharp(data_samples)))
        if mode == 'tensor':
            return torch.stack(self._restored(inputs))
        if mode != 'predict':
            raise InputError(f"mode must be loss, predict or tensor, got '{mode}'.")
        samples = [BaseDataElement() for _ in inputs] if data_samples is None else _separate(data_samples)
        destruct = getattr(self.data_preprocessor, 'destruct', None)
        for sample, image in zip(samples, self._restored(inputs), strict=True):
            image = image if destruct is None else destruct(image[None], [sample])[0]
            sample.output = BaseDataElement(pred_img=image, metainfo={'data_range': 1 if destruct is None else 255})
        return samples

    def checkpoint_metadata(self) -> dict[str, Any]:
        """What restoring needs besides weights, as in BasicSR's checkpoints: plain values only."""
        points = {name: point.as_options() for name, point in self.operating_points.items()}
        return {'format': 1, 'network': self.options, 'operating_points': points}

    def _losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        self._check_ranges(lq, gt)
        with torch.autocast(lq.device.type, _DTYPES[self.precision], enabled=self.precision != 'float32'):
            output = self.net(lq, gt=gt)
        if self.net.flow is not None:
            losses = {'loss_flow': self.objective(output['residual_prediction'], output['residual'], output['weight'])}
        else:
            losses = {'loss_noise': self.objective(output['noise_prediction'], output['noise'], output['noise_level'])}
        if self.initial_loss is not None and 'initial' in output:
            losses['loss_initial'] = self.initial_loss(output['initial'], gt)
        return losses

    def _restored(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        restorer, point = Restorer(self.net, precision=self.precision), next(iter(self.operating_points.values()))
        return [restorer.restore(image, point).image for image in images]

    def _check_ranges(self, lq: Tensor, gt: Tensor) -> None:
        """Refuse a first batch that is not in [0, 1], with which a training would go on silently."""
        if self._ranges_checked:
            return
        for name, images in (('inputs', lq), ('gt_img', gt)):
            if not images.is_floating_point() or not images.max() <= _HIGHEST:
                raise InputError(f'{name} must be in [0, 1] (here {images.dtype} up to {images.max():.4g}); for images in '
                                 "0..255 give the model data_preprocessor=dict(type='stochastic_refine.DataPreprocessor').")
        self._ranges_checked = True


@MODELS.register_module()
class DataPreprocessor(BaseDataPreprocessor):
    """Maps images of 0..255, ``uint8`` or not, to RGB in [0, 1]; the sharp ones in training alone, as MMagic's does, so that
    metrics compare images of 0..255.

    Args:
        bgr_to_rgb: Whether the data are BGR.
        non_blocking: mmengine's.
    """

    def __init__(self, bgr_to_rgb: bool = False, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.bgr_to_rgb = bgr_to_rgb

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        inputs = inputs['img'] if isinstance(inputs, Mapping) else inputs
        data['inputs'] = self._scaled(inputs) if isinstance(inputs, Tensor) else [self._scaled(image) for image in inputs]
        if training and samples is not None:
            for sample in [samples] if isinstance(samples, BaseDataElement) else samples:
                sample.gt_img = self._scaled(_tensor(sample.gt_img))
        return data

    def destruct(self, images: Tensor, data_samples: Any = None) -> Tensor:
        """Restored images (B, 3, H, W) back in the data's range and order of channels."""
        return 255 * (images.flip(-3) if self.bgr_to_rgb else images)

    def _scaled(self, images: Tensor) -> Tensor:
        return (images.flip(-3) if self.bgr_to_rgb else images).float() / 255


def _built(options: Mapping[str, Any], where: str) -> nn.Module:
    """A part by the names of our registry and mmengine's, whatever the default scope of the config is."""
    cls = MODELS.get(options['type'])
    if cls is None:
        raise InputError(f"{where}: unknown type '{options['type']}'; {nearest(options['type'], MODELS.module_dict)}")
    return MODELS.build({**options, 'type': cls})


def _named(points: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The points as in a ``val:`` block of an options file."""
    if points is None:
        return {}
    if not isinstance(points, Sequence) or not points or not all(isinstance(p, Mapping) and 'name' in p for p in points):
        raise InputError('operating_points must be a list of blocks with names, for example [dict(name=\'ours\', steps=50)].')
    return {'operating_points': {point['name']: {k: v for k, v in point.items() if k != 'name'} for point in points}}


def _sharp(samples: Samples | None) -> Tensor | list[Tensor]:
    if samples is None:
        raise InputError("mode='loss' needs data_samples with the sharp images under gt_img; let the data set give them.")
    return _tensor(samples.gt_img) if isinstance(samples, BaseDataElement) else [_tensor(each.gt_img) for each in samples]


def _separate(samples: Samples) -> list[BaseDataElement]:
    """One sample for each image."""
    if not isinstance(samples, BaseDataElement):
        return list(samples)
    if hasattr(samples, 'split'):  # MMagic's
        return samples.split()
    return [BaseDataElement(gt_img=image) for image in _tensor(samples.gt_img)]


def _tensor(image: Any) -> Tensor:
    """An image, or what mmengine's PixelData holds."""
    return image if isinstance(image, Tensor) else image.data


def _stacked(images: Tensor | Sequence[Tensor]) -> Tensor:
    return images if isinstance(images, Tensor) else torch.stack(list(images))


def _plain(value: Any) -> Any:
    """mmengine's blocks of a config as dicts, so that checkpoints hold plain values."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
