"""Networks that the package spandrel knows and this one has not, as networks of ours (an extra: ``pip install spandrel``)."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, words_of
from ..values import nearest
from .build import arch


def is_installed() -> bool:
    """Whether spandrel can be imported."""
    return importlib.util.find_spec('spandrel') is not None


@arch
class SpandrelNet(nn.Module):
    """A restoration network of spandrel's.

    Args:
        architecture: spandrel's name of the architecture, e.g. ``SwinIR``.
        network: Class name of the network, where an architecture has several, e.g. ``KBNet_s``.
        settings: Its constructor's arguments, where they are not its defaults.

    Shape:
        (B, 3, H, W) in [0, 1] to the same; padded at the right and bottom to the sizes that the network needs.

    Raises:
        InputError: If spandrel is missing, has no such network, or this one does something else than restore.
    """

    def __init__(self, architecture: str, network: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        kind = _architecture(architecture)
        cls = _classes(kind).get(network)
        if cls is None:
            raise InputError(f"spandrel's {architecture} has no network '{network}'; {nearest(network, _classes(kind))}")
        target = torch.empty(0).device  # where what is built now goes
        with torch.device('cpu'):  # some constructors compute with values, which the meta device has not
            state = cls(**(settings or {})).state_dict()
            if (settings or {}).get('start_unshuffle', 1) > 1:  # which spandrel tells by the name that published files have
                state = {name.replace('conv_first.', 'conv_first.1.'): value for name, value in state.items()}
            descriptor = kind.load(state)
        _check(descriptor, f"spandrel's {architecture}")
        self.net = descriptor.model.to(target)
        self._requirements = descriptor.size_requirements
        self._call = descriptor._call_fn  # how the network is called; the descriptor's own call is for inference alone

    @property
    def size_multiple(self) -> int:
        """Inputs are padded to a multiple of this many pixels."""
        return self._requirements.multiple_of

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        right, bottom = self._requirements.get_padding(width, height)
        # As spandrel's own call: reflected, and repeated where that is not enough
        reflected = (0, min(right, width - 1), 0, min(bottom, height - 1))
        x = F.pad(F.pad(x, reflected, mode='reflect'), (0, right - reflected[1], 0, bottom - reflected[3]), mode='replicate')
        return self._call(self.net, x)[..., :height, :width]


def recognise_by_spandrel(params: Mapping[str, Tensor], where: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The options of a :class:`SpandrelNet` and its state dict, from that of a network that spandrel knows; else None.

    Raises:
        InputError: If it knows the network, and this is none that restores photos at their size.
    """
    from spandrel import MAIN_REGISTRY, UnsupportedModelError
    try:
        descriptor = MAIN_REGISTRY.load(dict(params))
    except UnsupportedModelError:
        return None
    except Exception as error:  # its guesses of a foreign network's settings fail with any exception there is
        raise InputError(f"{where} looks like a network that spandrel knows, and spandrel cannot load it ({words_of(error)}); "
                         'take another file.') from error
    architecture = descriptor.architecture.id
    _check(descriptor, f'{where}: {architecture}')
    net = descriptor.model
    return ({'type': SpandrelNet.__name__, 'architecture': str(architecture), 'network': type(net).__name__,
             'settings': _changed_settings(net, where)},
            {f'net.{name}': value for name, value in net.state_dict().items()})


def _architecture(name: str) -> Any:
    if not is_installed():
        raise InputError(f'The network {name} comes from spandrel, which is not installed; run: pip install spandrel.')
    from spandrel import MAIN_REGISTRY
    support = MAIN_REGISTRY.get(name)
    if support is None:
        known = [str(support.architecture.id) for support in MAIN_REGISTRY.architectures()]
        raise InputError(f"spandrel has no architecture '{name}'; {nearest(name, known)}")
    return support.architecture


def _classes(architecture: Any) -> dict[str, type[nn.Module]]:
    """The networks of an architecture by class name."""
    module = sys.modules[type(architecture).__module__]
    return {value.__name__: value for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, nn.Module)}


def _check(descriptor: Any, where: str) -> None:
    does = (descriptor.purpose, descriptor.scale, descriptor.input_channels, descriptor.output_channels)
    if does != ('Restoration', 1, 3, 3):
        raise InputError(f'{where} is for {does[0]}, at {does[1]} times the size, from {does[2]} channels to {does[3]}; a '
                         'network that restores colour photos at their size is needed.')


def _changed_settings(net: nn.Module, where: str) -> dict[str, Any]:
    """The arguments that a network was built with, where they are not its defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(net).__init__).parameters.items()}
    settings = {name: value for name, value in net.hyperparameters.items()
                if name in defaults and not _same(value, defaults[name])}
    plain = (bool, int, float, str, list, tuple, type(None))
    strange = next((name for name, value in settings.items() if not isinstance(value, plain)), None)
    if strange is not None:
        raise InputError(f'{where}: the setting {strange} of {type(net).__name__} cannot be stored; take another file.')
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default
