"""What others build on: public names, types in options files, commands and their flags.

``api_surface.json`` is the list. Whoever removes or renames one takes it out there, and so knows that users will notice;
whoever adds one writes it down by ``python tests/test_api_surface.py``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

SURFACE = Path(__file__).with_name('api_surface.json')


def _exports() -> dict[str, list[str]]:
    """The names that the package and its lower rooms export, by ``__all__``."""
    rooms = ('', '.archs', '.blur', '.checkpoints', '.diffusion')
    return {f'stochastic_refine{room}': sorted(importlib.import_module(f'stochastic_refine{room}').__all__) for room in rooms}


def _arguments() -> dict[str, list[str]]:
    """The arguments of what README and design name."""
    from stochastic_refine import Deblurrer
    from stochastic_refine.archs.predict_refine_arch import PredictRefineNet
    from stochastic_refine.archs.refine_unet_arch import RefineUNet
    from stochastic_refine.diffusion import NoiseSchedule
    from stochastic_refine.inference.deblurrer import Result
    from stochastic_refine.inference.operating_point import OperatingPoint
    from stochastic_refine.integrations import export, spandrel
    called = {'Deblurrer': Deblurrer, 'Deblurrer.from_pretrained': Deblurrer.from_pretrained,
              'Deblurrer.__call__': Deblurrer.__call__, 'Result': Result, 'OperatingPoint': OperatingPoint,
              'PredictRefineNet': PredictRefineNet, 'RefineUNet': RefineUNet, 'NoiseSchedule.linear': NoiseSchedule.linear,
              'integrations.export.to_onnx': export.to_onnx, 'integrations.spandrel.install': spandrel.install,
              'integrations.spandrel.save': spandrel.save}
    return {name: [argument for argument in inspect.signature(function).parameters if argument != 'self']
            for name, function in called.items()}


def _types() -> dict[str, list[str]]:
    """What an options file may name."""
    from stochastic_refine import registration
    from stochastic_refine.archs import ARCHS
    from stochastic_refine.diffusion import SAMPLERS
    groups = {'networks': ARCHS, 'models': registration.MODELS, 'losses': registration.LOSSES, 'metrics': registration.METRICS,
              'data sets': registration.DATASETS, 'samplers': SAMPLERS}
    return {group: sorted(names) for group, names in groups.items()}


def _flags(parser: argparse.ArgumentParser, name: str = 'stochastic-refine') -> dict[str, list[str]]:
    """The arguments of each command; of those with sub-commands also of these."""
    found = {name: []}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, sub in action.choices.items():
                found.update(_flags(sub, f'{name} {command}'))
        elif not isinstance(action, argparse._HelpAction):
            found[name] += action.option_strings or [action.dest]
    return {command: sorted(flags) for command, flags in found.items()}


def surface() -> dict[str, Any]:
    from stochastic_refine.cli.main import _parser
    return {'exports': _exports(), 'arguments': _arguments(), 'types': _types(), 'commands': _flags(_parser())}


def test_nothing_that_users_name_goes_unnoticed() -> None:
    recorded, found = json.loads(SURFACE.read_text()), surface()
    for part in recorded:
        gone = {f'{group}: {name}' for group, names in recorded[part].items() for name in names
                if name not in found[part].get(group, ())}
        new = {f'{group}: {name}' for group, names in found[part].items() for name in names
               if name not in recorded[part].get(group, ())}
        assert not gone, f'{part}: gone; if that is meant, take it out of {SURFACE.name} too'
        assert not new, f'{part}: new; write it down by python tests/{Path(__file__).name}'


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[1]))
    SURFACE.write_text(json.dumps(surface(), indent=1) + '\n')
