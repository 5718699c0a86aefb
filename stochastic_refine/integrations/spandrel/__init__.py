"""Our networks in programs that load them by spandrel: ComfyUI, chaiNNer, dgenerate (an extra: ``.[spandrel]``).

Such a program hands over tensors alone, from whose shapes neither sampler nor schedule can be told. So :func:`save` writes a
file in which one more tensor holds the settings, and :func:`install` makes spandrel read it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...archs.build import without_pretrained
from ...archs.layouts import recognise
from ...archs.pretrained import read_weights, require_network
from ...archs.sampling import SamplingNetwork
from ...checkpoints import Checkpoint, save_safetensors
from ...checkpoints.weights_folder import find_weights
from ...errors import InputError
from ...files import check_writable, make_folder, write_atomically
from ...inference.deblurrer import Deblurrer
from ...inference.operating_point import OperatingPoint
from ...inference.restorer import Restorer
from ...inference.weights import network_of

ID = 'StochasticRefine'
#: The tensor that holds the settings: the UTF-8 bytes of JSON, one in an int32, a type that restricted unpicklers know.
SETTINGS = 'stochastic_refine.settings'
_REMEDY = ("write it for such programs by stochastic_refine.integrations.spandrel.save(WEIGHTS, 'net.safetensors') and load "
           'that file.')


def install() -> None:
    """Make spandrel know our files, in this process; safe to call twice.

    Raises:
        InputError: If spandrel is missing or too old.
    """
    _require()
    from spandrel import MAIN_REGISTRY, Architecture, ArchSupport

    class StochasticRefine(Architecture[nn.Module]):

        def __init__(self) -> None:
            super().__init__(id=ID, name='stochastic_refine', detect=_is_ours)

        def load(self, state_dict: Mapping[str, Tensor]) -> Any:
            return _descriptor(self, state_dict)

    others = tuple(support.architecture.id for support in MAIN_REGISTRY if support.architecture.id != ID)
    # Before the others: a file of a network that spandrel knows too also has that network's names
    MAIN_REGISTRY.add(ArchSupport.from_architecture(StochasticRefine(), before=others), ignore_duplicates=True)


def save(weights: str | Path, path: str | Path, point: str | None = None, **changes: Any) -> None:
    """Write weights as a file that spandrel reads after :func:`install`; it restores as ``Deblurrer`` does at one point.

    Args:
        weights: Name or file of weights of any network of ours.
        path: File to write, ``.safetensors`` or ``.pth``.
        point: Operating point of the weights, by default their first. In programs that cut images into tiles of their own a
            mean of samples is best, since samples of neighbouring tiles have other noise.
        **changes: Its settings to change, such as ``steps``, ``seed`` or ``num_samples``; or ``tradeoff`` in place of a point.

    Raises:
        InputError: If the weights cannot be used, or a setting means nothing to them.
    """
    path, file = Path(path), find_weights(weights)
    if path.suffix not in ('.safetensors', '.pth'):
        raise InputError(f'{path} must end in .safetensors or .pth, which such programs load.')
    check_writable(path)
    checkpoint = require_network(read_weights(file), str(file))
    settings: dict[str, Any] = {'network': without_pretrained(checkpoint.metadata['network'])}
    deblurrer = Deblurrer.from_pretrained(weights, device='cpu', precision='float32')
    if isinstance(deblurrer.net, SamplingNetwork):
        chosen = deblurrer.operating_point(point, **changes)
        deblurrer.net.rules.check(chosen, 'spandrel')
        settings['point'] = chosen.as_options()
    elif point is not None or changes:
        raise InputError(f'{weights} is deterministic and has no operating points; leave out {point or ", ".join(changes)}.')
    if checkpoint.metadata.get('window'):
        settings['window'] = checkpoint.metadata['window']
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8).astype(np.int32)
    params = {**checkpoint.params, SETTINGS: torch.from_numpy(text)}
    make_folder(path.parent)
    if path.suffix == '.pth':
        write_atomically(path, lambda temporary: torch.save({'params': params}, temporary))
    else:
        save_safetensors(path, params, {})


def _require() -> None:
    if importlib.util.find_spec('spandrel') is None:
        raise InputError("The package spandrel is not installed; run: pip install 'stochastic_refine[spandrel]'.")
    import spandrel
    if not hasattr(spandrel, 'ModelTiling') or not hasattr(spandrel, 'ArchSupport'):
        raise InputError(f"This needs spandrel 0.4 or later, and {importlib.metadata.version('spandrel')} is installed; run: "
                         'pip install -U spandrel.')


def _is_ours(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether :func:`save` wrote it, or it is bare and of a network that only we know, to be refused with a remedy."""
    if SETTINGS in state_dict or 'denoiser.conv_in.weight' in state_dict:
        return True
    from spandrel import MAIN_REGISTRY
    if any(support.detect(state_dict) for support in MAIN_REGISTRY if support.architecture.id != ID):
        return False
    try:
        return recognise(dict(state_dict)) is not None
    except InputError:
        return False


def _descriptor(architecture: Any, state_dict: Mapping[str, Tensor]) -> Any:
    """What spandrel hands to its host."""
    from spandrel import ImageModelDescriptor, ModelTiling, SizeRequirements
    params = dict(state_dict)
    text = params.pop(SETTINGS, None)
    if text is None:
        raise InputError('This file holds weights of a network of stochastic_refine without its settings, which shapes do not '
                         f'tell; {_REMEDY}')
    try:
        settings = json.loads(bytes(text.to('cpu', torch.uint8).tolist()))
        checkpoint = Checkpoint(params, {'network': settings['network'], 'window': settings.get('window')})
        point = OperatingPoint.from_options(settings.get('point', {}), SETTINGS)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f'The tensor {SETTINGS} of this file is damaged ({error}); {_REMEDY}') from error
    net, _, metadata = network_of(checkpoint, 'This file')

    def call(net: nn.Module, image: Tensor) -> Tensor:
        restorer = Restorer(net, tile='auto', window=metadata['window'])
        return torch.stack([restorer.restore(each, point).image for each in image]).to(image)

    return ImageModelDescriptor(
        net, dict(net.state_dict()), architecture, purpose='Restoration', tags=[type(net).__name__, *(
            [point.sampler, f'{point.steps} steps'] if isinstance(net, SamplingNetwork) else [])],
        # Samplers compute in float32, and so do all networks here
        supports_half=False, supports_bfloat16=False, scale=1, input_channels=3, output_channels=3,
        size_requirements=SizeRequirements(), tiling=ModelTiling.INTERNAL, call_fn=call)
