"""The nodes, found, checked and run as ComfyUI does, with stubs of its server and of its progress bar."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from stochastic_refine.cli import main
from stochastic_refine.inference.deblurrer import Deblurrer

pytest.importorskip('spandrel')


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """As much of a ComfyUI as it is recognised by."""
    (tmp_path / 'ComfyUI' / 'custom_nodes').mkdir(parents=True)
    (tmp_path / 'ComfyUI' / 'nodes.py').write_text('NODE_CLASS_MAPPINGS = {}\n')
    return tmp_path / 'ComfyUI'


class Interrupted(Exception):
    """As ComfyUI's, of a user who presses stop."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    state = SimpleNamespace(progress=[], stop_after=None)

    class ProgressBar:

        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, value: int, total: int) -> None:
            state.progress.append((value, total))

    def check() -> None:
        if state.stop_after is not None and len(state.progress) >= state.stop_after:
            raise Interrupted

    comfy = ModuleType('comfy')
    comfy.model_management = SimpleNamespace(get_torch_device=lambda: torch.device('cpu'),
                                             throw_exception_if_processing_interrupted=check)
    comfy.utils = SimpleNamespace(ProgressBar=ProgressBar)
    for name, module in (('comfy', comfy), ('comfy.utils', comfy.utils), ('comfy.model_management', comfy.model_management)):
        monkeypatch.setitem(sys.modules, name, module)
    return state


def custom_nodes(root: Path) -> dict[str, type]:
    """What ComfyUI finds in each folder of custom_nodes."""
    found = {}
    for folder in (root / 'custom_nodes').iterdir():
        name = f'custom_nodes.{folder.name}'
        spec = importlib.util.spec_from_file_location(name, folder / '__init__.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        found.update(module.NODE_CLASS_MAPPINGS)
    return found


def execute(cls: type, **inputs: Any) -> dict[str, Any]:
    """Check what a prompt gives against INPUT_TYPES, fill in the defaults, call FUNCTION, name what RETURN_NAMES names."""
    kinds = cls.INPUT_TYPES()
    wanted = {**kinds['required'], **kinds.get('optional', {})}
    assert inputs.keys() <= wanted.keys()
    for name, (kind, *settings) in wanted.items():
        setting = settings[0] if settings else {}
        value = inputs.setdefault(name, setting.get('default'))
        assert value is not None, f'{name} is no widget and must be linked'
        if isinstance(kind, list):
            assert value in kind
        elif kind in ('INT', 'FLOAT'):
            assert setting['min'] <= value <= setting['max']
    node = cls()
    outputs = getattr(node, node.FUNCTION)(**inputs)
    assert isinstance(outputs, tuple) and len(outputs) == len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
    return dict(zip(cls.RETURN_NAMES, outputs))


def test_installs_restores_and_goes_away(comfyui: Path, server: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    before = sorted(comfyui.rglob('*'))
    assert main(['install-into', str(comfyui)]) == 0 and 'Put into' in capsys.readouterr().out
    assert main(['install-into', str(comfyui)]) == 0 and 'already' in capsys.readouterr().out
    nodes = custom_nodes(comfyui)
    model = execute(nodes['LoadStochasticRefine'])['model']
    images = torch.rand(2, 40, 56, 3)
    restore = nodes['RestoreStochasticRefine']
    result = execute(restore, model=model, image=images, point='fast', samples=2, seed=9)
    expected = Deblurrer.from_pretrained('small', device='cpu')(images[1].numpy(), point='fast', samples=2, seed=9)
    assert torch.equal(result['image'][1], torch.from_numpy(expected.image))
    assert torch.equal(result['std'][1], torch.from_numpy(expected.std))
    assert result['samples'].shape == (4, 40, 56, 3) and 'fast' in result['info'] and 'seed 9' in result['info']
    assert server.progress[-1][0] == server.progress[-1][1]
    assert 'tradeoff 0' in execute(restore, model=model, image=images[:1, :16, :16], tradeoff=0.0)['info']
    assert main(['install-into', str(comfyui), '--uninstall']) == 0
    assert sorted(comfyui.rglob('*')) == before


def test_tiles_inside_each_step_leave_no_seam(comfyui: Path, server: SimpleNamespace) -> None:
    from stochastic_refine.archs import build_arch
    from stochastic_refine.integrations.spandrel.comfyui import RestoreStochasticRefine
    unet = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
    net = build_arch({'type': 'PredictRefineNet', 'predictor': unet,
                      'denoiser': {**unet, 'in_channels': 6, 'noise_conditioned': True}})
    model, image = Deblurrer(net, device='cpu', precision='float32'), torch.linspace(0, 1, 3 * 96 * 200).reshape(1, 96, 200, 3)
    whole, tiled = (execute(RestoreStochasticRefine, model=model, image=image, tile=tile)['image'] for tile in (0, 64))
    assert len(set(server.progress)) > 60 and torch.allclose(whole, tiled, atol=1e-4)


def test_stops_when_the_user_does(server: SimpleNamespace) -> None:
    from stochastic_refine.integrations.spandrel.comfyui import RestoreStochasticRefine
    server.stop_after = 2
    with pytest.raises(Interrupted):
        execute(RestoreStochasticRefine, model=Deblurrer.from_pretrained('small', device='cpu'), image=torch.rand(1, 16, 16, 3))
    assert len(server.progress) == 2


def test_what_is_not_ours_stays(comfyui: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['install-into', str(comfyui)]) == 0
    file = comfyui / 'custom_nodes' / 'stochastic_refine' / '__init__.py'
    file.write_text(file.read_text() + '# mine\n')
    for flags in ([], ['--uninstall']):
        assert main(['install-into', str(comfyui), *flags]) == 2 and 'not as install-into wrote it' in capsys.readouterr().err
    assert file.read_text().endswith('# mine\n')
