"""ONNX files against PyTorch, at sizes that need padding and sizes that do not."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from stochastic_refine.archs import PredictRefineNet, build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.diffusion import SampleNoise
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
if not hasattr(getattr(torch.export, 'Dim', None), 'DYNAMIC'):
    pytest.skip('needs PyTorch 2.6', allow_module_level=True)

from stochastic_refine.integrations.export import to_onnx  # noqa: E402

DEMO = Path(__file__).resolve().parents[2] / 'scripts' / 'demos' / 'restore_onnx.py'
SIZES = [(64, 64), (67, 91), (33, 128), (9, 40)]
UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'patch_size': 4, 'num_res_blocks': 1}
NETWORK = {'type': 'PredictRefineNet', 'predictor': {**UNET, 'global_skip': True},
           'denoiser': {**UNET, 'in_channels': 9, 'noise_conditioned': True}, 'condition': 'lq+initial',
           'residual_scale': 4.0, 'sampling': {'sampler': 'ddim', 'steps': 2, 'final_variance': 0.5, 'eta': 0.5, 'seed': 3}}


@pytest.fixture(scope='module')
def net() -> PredictRefineNet:
    torch.manual_seed(0)
    net = build_arch(NETWORK)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return net.eval()


def run(path: Path, **inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.mark.parametrize('part', ['predictor', 'denoiser', 'restore'])
def test_agrees_with_pytorch_at_every_size(net: PredictRefineNet, tmp_path: Path, part: str) -> None:
    told = to_onnx(net, tmp_path / 'net.onnx', part)
    assert [path.name for path in tmp_path.iterdir()] == ['net.onnx']
    for height, width in SIZES:
        lq = torch.rand(3, 3, height, width)
        with torch.no_grad():
            if part == 'predictor':
                inputs, expected = {'lq': lq}, net.predict(lq)
            elif part == 'denoiser':
                condition, level = net.conditioning(lq, lq.flip(1)), torch.tensor([0.1, 0.5, 0.9])
                inputs = {'r_t': torch.randn_like(lq), 'condition': condition, 'noise_level': level}
                expected = net.denoise(**inputs)
            else:
                draw = SampleNoise([3] * 3, lq.shape[1:])
                inputs, expected = {'lq': lq, 'noise': torch.stack([draw() for _ in range(int(told['draws']))])}, net(lq)
        assert torch.allclose(run(tmp_path / 'net.onnx', **inputs), expected, atol=1e-4), (height, width)


def test_one_graph_of_torch_export_takes_every_size(net: PredictRefineNet) -> None:
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    for example in ((67, 91), (64, 64)):  # a multiple, and none
        graph = torch.export.export(net.predictor, (torch.rand(2, 3, *example), ), dynamic_shapes={'x': free}).module()
        for size in SIZES:
            lq = torch.rand(1, 3, *size)
            assert torch.allclose(graph(lq), net.predictor(lq), atol=1e-6)


def test_compiles_without_a_graph_break(net: PredictRefineNet) -> None:
    predictor, denoiser = (torch.compile(part, fullgraph=True, dynamic=True, backend='eager')
                           for part in (net.predictor, net.denoiser))
    for size in SIZES:
        lq, state, level = torch.rand(2, 3, *size), torch.randn(2, 9, *size), torch.tensor([0.1, 0.9])
        assert torch.allclose(predictor(lq), net.predictor(lq), atol=1e-6)
        assert torch.allclose(denoiser(state, level), net.denoiser(state, level), atol=1e-6)


def test_demo_makes_the_same_picture_of_a_seed_without_pytorch(net: PredictRefineNet, tmp_path: Path) -> None:
    points = {'mean': {'sampler': 'ancestral', 'steps': 2, 'final_variance': 0.9, 'num_samples': 2, 'average': True}}
    save_safetensors(tmp_path / 'net.safetensors', net.state_dict(), {'network': NETWORK, 'operating_points': points})
    assert main(['export', str(tmp_path / 'net.safetensors'), '-o', str(tmp_path / 'net.onnx'), '--part', 'restore']) == 0
    photo = (np.random.default_rng(0).random((37, 45, 3)) * 255).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / 'photo.png')
    code = ('import sys, runpy; sys.modules["torch"] = sys.modules["stochastic_refine"] = None; sys.argv = sys.argv[1:]; '
            'runpy.run_path(sys.argv[0], run_name="__main__")')
    demo = [sys.executable, '-c', code, DEMO, tmp_path / 'net.onnx', tmp_path / 'photo.png', tmp_path / 'sharp.png', '11']
    done = subprocess.run(demo, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    deblurrer = Deblurrer.from_pretrained(tmp_path / 'net.safetensors', device='cpu', precision='float32')
    expected, got = deblurrer(photo, seed=11).image, np.asarray(Image.open(tmp_path / 'sharp.png'), np.float32) / 255
    assert np.abs(got - expected).max() < 1 / 255
    assert np.abs(deblurrer(photo, seed=12).image - expected).max() > 2 / 255  # or any seed would do


class TestRefusals:

    def test_without_onnx_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
        with pytest.raises(InputError, match=r'pip install .stochastic_refine\[export\]'):
            to_onnx(nn.Conv2d(3, 3, 1), tmp_path / 'x.onnx')

    def test_of_a_network_without_that_part(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match='Conv2d has no denoiser here; export its part predictor'):
            to_onnx(nn.Conv2d(3, 3, 1), tmp_path / 'x.onnx', 'denoiser')

    @pytest.mark.parametrize('options, words', [
        ({'type': 'MAXIM', 'features': 4, 'num_stages': 1}, 'MAXIM cannot be written as ONNX for free sides.*--size'),
        ({'type': 'EVSSM', 'dim': 8, 'num_blocks': [2, 2, 2]}, 'selective scan'),
    ])
    def test_of_networks_that_no_graph_holds(self, tmp_path: Path, options: dict, words: str) -> None:
        with pytest.raises(InputError, match=words):
            to_onnx(build_arch(options), tmp_path / 'x.onnx')

    def test_of_a_point_that_means_nothing(self, net: PredictRefineNet, tmp_path: Path) -> None:
        with pytest.raises(InputError, match='mean nothing to the part predictor of PredictRefineNet'):
            to_onnx(net, tmp_path / 'x.onnx', steps=3)

    def test_of_a_size_below_the_least(self, net: PredictRefineNet, tmp_path: Path) -> None:
        with pytest.raises(InputError, match='takes sides from 8 pixels'):
            to_onnx(net, tmp_path / 'x.onnx', dynamic=False, size=(4, 40))

    def test_of_what_cannot_be_traced(self, tmp_path: Path) -> None:
        class Deciding(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x if x.mean() > 0 else -x
        with pytest.raises(InputError, match='Deciding cannot be written as ONNX'):
            to_onnx(Deciding(), tmp_path / 'x.onnx')
        assert not list(tmp_path.iterdir())

    def test_many_steps_are_warned_of(self, net: PredictRefineNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr('stochastic_refine.integrations.export._write', lambda *_: None)
        with pytest.warns(UserWarning, match="21 calls .* export the part 'denoiser'"):
            to_onnx(copy.deepcopy(net), tmp_path / 'x.onnx', 'restore', steps=21)
