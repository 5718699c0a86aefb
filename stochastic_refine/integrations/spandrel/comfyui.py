"""Nodes of ComfyUI: load weights, and restore with the knob. ComfyUI imports this; it needs ComfyUI only while a node runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.weights_folder import available_weights
from ...inference.deblurrer import Deblurrer, Result

_CATEGORY = 'image/restoration'
_MODEL = 'STOCHASTIC_REFINE'


class LoadStochasticRefine:
    """Weights by name: the bundled ones, and those that ``stochastic-refine weights`` got or imported."""

    CATEGORY, FUNCTION = _CATEGORY, 'load'
    RETURN_TYPES, RETURN_NAMES = (_MODEL, ), ('model', )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {'required': {'weights': (sorted(available_weights()), {'default': 'small'})}}

    def load(self, weights: str) -> tuple[Deblurrer]:
        from comfy import model_management
        return (Deblurrer.from_pretrained(weights, device=str(model_management.get_torch_device())), )


class RestoreStochasticRefine:
    """Restores a batch of images, each as a whole: tiles are cut inside each step of the sampler, so that no seam can show."""

    CATEGORY, FUNCTION = _CATEGORY, 'restore'
    RETURN_TYPES = ('IMAGE', 'IMAGE', 'IMAGE', 'IMAGE', 'STRING')
    RETURN_NAMES = ('image', 'initial', 'samples', 'std', 'info')

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {'required': {
            'model': (_MODEL, ),
            'image': ('IMAGE', ),
            'tradeoff': ('FLOAT', {
                'default': 0.5, 'min': 0.0, 'max': 1.0, 'step': 0.05,
                'tooltip': '0: most faithful; 1: most vivid. A point that is given goes before it, and so does the first point '
                           'of weights without such a path, as info says.'}),
            'samples': ('INT', {'default': 0, 'min': 0, 'max': 64,
                                'tooltip': 'Samples per image; 0: as the knob or the point has it.'}),
            'seed': ('INT', {'default': 0, 'min': 0, 'max': 2**62 - 1}),
            'tile': ('INT', {'default': 0, 'min': 0, 'max': 8192, 'step': 64,
                             'tooltip': 'Side of the tiles inside each step, in pixels; 0: what fits into memory. Tiles of our '
                                        'pair change nothing.'}),
        }, 'optional': {
            'point': ('STRING', {'default': '',
                                 'tooltip': 'Operating point of the weights, such as vivid, in place of the knob.'}),
        }}

    def restore(self, model: Deblurrer, image: Tensor, tradeoff: float, samples: int, seed: int, tile: int,
                point: str = '') -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        """Restore (B, H, W, 3) in [0, 1]. Samples of all images come one after another; std is black where there is one."""
        from comfy import model_management
        from comfy.utils import ProgressBar
        model.tile = tile or 'auto'
        knob = tradeoff if model.tradeoff_points and not point else None
        chosen = model.operating_point(point or None, knob, num_samples=samples or None, seed=seed)
        progress = ProgressBar(len(image))

        def restored(number: int, pixels: Tensor) -> Result:

            def on_call(done: int, total: int) -> None:
                model_management.throw_exception_if_processing_interrupted()
                progress.update_absolute(number * total + done, len(image) * total)

            return model(pixels.cpu().numpy(), samples=samples or None, seed=seed, point=point or None, tradeoff=knob,
                         on_call=on_call)

        results = [restored(number, pixels) for number, pixels in enumerate(image[..., :3])]
        images = _stacked([result.image for result in results])
        initial = _stacked([result.image if result.initial is None else result.initial for result in results])
        drawn = _stacked([sample for result in results
                          for sample in (result.image[None] if result.samples is None else result.samples)])
        std = _stacked([np.zeros_like(result.image) if result.std is None else result.std for result in results])
        info = 'a deterministic network: no knob, no seed'
        if results[0].samples is not None:
            decided = point or next(iter(model.points)) if knob is None else f'tradeoff {knob:g}'
            info = f'{decided}: {chosen.words}, {chosen.sampler}, seed {seed}'
        return images, initial, drawn, std, '; '.join(filter(None, [info, results[0].tiling]))


def _stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (LoadStochasticRefine, RestoreStochasticRefine)}
NODE_DISPLAY_NAME_MAPPINGS = {'LoadStochasticRefine': 'Load deblurring weights (stochastic_refine)',
                              'RestoreStochasticRefine': 'Deblur (stochastic_refine)'}
