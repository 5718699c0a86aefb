"""Our networks through spandrel, loaded in the three ways of its hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer

spandrel = pytest.importorskip('spandrel')

from stochastic_refine.integrations.spandrel import SETTINGS, install, save  # noqa: E402

UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
DENOISER = {**UNET, 'in_channels': 6, 'noise_conditioned': True}
NAFNET = {'type': 'NAFNet', 'width': 4, 'middle_blk_num': 1, 'enc_blk_nums': [1], 'dec_blk_nums': [1]}
HINET = {'type': 'HINet', 'wf': 4, 'depth': 3}
NETWORKS: dict[str, dict[str, Any]] = {
    'pair': {'type': 'PredictRefineNet', 'predictor': UNET, 'denoiser': DENOISER, 'residual_scale': 4.0},
    'pair on NAFNet': {'type': 'PredictRefineNet', 'predictor': NAFNET, 'denoiser': DENOISER},
    'no predictor': {'type': 'PredictRefineNet', 'predictor': None, 'denoiser': DENOISER},
    'MAXIM': {'type': 'MAXIM', 'features': 4, 'num_stages': 1},
    'HINet': HINET,
    'MIMOUNet': {'type': 'MIMOUNet', 'num_res': 1, 'base_channel': 8},
    'DBGAN': {'type': 'DBGAN', 'nf': 4, 'nb': 1, 'gc': 2},
    'DeblurGANv2': {'type': 'DeblurGANv2', 'backbone': 'mobilenet'},
    'NAFNet, which spandrel knows': NAFNET,
}
POINTS = {'mean': {'steps': 2, 'final_variance': 0.5, 'num_samples': 2, 'average': True, 'clamp': True},
          'one': {'sampler': 'ddim', 'steps': 3, 'final_variance': 0.7}}


def weights(folder: Path, options: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    net = build_arch(options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    points = POINTS if options['type'] == 'PredictRefineNet' else {}
    save_safetensors(folder / 'net.safetensors', net.state_dict(), {'network': options, 'operating_points': points})
    return folder / 'net.safetensors'


def loaded(path: Path, way: str) -> Any:
    install()
    if way != 'bare':
        return spandrel.ModelLoader().load_from_file(path)
    import safetensors.torch  # as ComfyUI, which reads the file itself
    return spandrel.ModelLoader().load_from_state_dict(safetensors.torch.load_file(path)).eval()


@pytest.mark.parametrize('way', ['file', '.pth', 'bare'])
def test_every_way_gives_the_picture_of_the_deblurrer(tmp_path: Path, way: str) -> None:
    source, target = weights(tmp_path, NETWORKS['pair']), tmp_path / ('x.pth' if way == '.pth' else 'x.safetensors')
    save(source, target, 'one', seed=5)
    descriptor, photo = loaded(target, way), torch.rand(1, 3, 37, 50)
    expected = Deblurrer.from_pretrained(source, device='cpu', precision='float32', tile=None)(photo[0], point='one', seed=5)
    for _ in range(2):  # the same picture at each call
        image = descriptor(photo)
        assert (image[0].permute(1, 2, 0) - torch.from_numpy(expected.image)).abs().max() < 2e-3
        assert image.dtype == photo.dtype and image.shape == photo.shape


@pytest.mark.parametrize('name', NETWORKS)
def test_every_network(tmp_path: Path, name: str) -> None:
    source = weights(tmp_path, NETWORKS[name])
    save(source, tmp_path / 'x.safetensors')
    descriptor, photo = loaded(tmp_path / 'x.safetensors', 'file'), torch.rand(1, 3, 37, 50)
    expected = Deblurrer.from_pretrained(source, device='cpu', precision='float32')(photo[0]).image
    assert (descriptor(photo)[0].permute(1, 2, 0) - torch.from_numpy(expected)).abs().max() < 2e-3


def test_descriptor_tells_the_truth_and_installing_twice_changes_nothing(tmp_path: Path) -> None:
    save(weights(tmp_path, NETWORKS['pair']), tmp_path / 'x.safetensors')
    install()
    descriptor = loaded(tmp_path / 'x.safetensors', 'file')
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)
    assert (descriptor.purpose, descriptor.scale) == ('Restoration', 1)
    assert descriptor.input_channels == descriptor.output_channels == 3
    assert descriptor.tiling is spandrel.ModelTiling.INTERNAL and not descriptor.size_requirements.multiple_of > 1
    with pytest.raises(spandrel.UnsupportedDtypeError):
        descriptor.half()


@pytest.mark.parametrize('name', ['pair', 'pair on NAFNet', 'no predictor', 'HINet', 'MIMOUNet'])
def test_a_file_without_settings_is_refused_by_a_sentence_that_names_save(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r'without its settings.*spandrel\.save'):
        loaded(weights(tmp_path, NETWORKS[name]), 'file')


def test_what_spandrel_knows_stays_its_own(tmp_path: Path) -> None:
    assert loaded(weights(tmp_path, NAFNET), 'file').architecture.id == 'NAFNet'


def test_without_spandrel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match=r'pip install .stochastic_refine\[spandrel\]'):
        install()


def test_bad_input(tmp_path: Path) -> None:
    source = weights(tmp_path, HINET)
    with pytest.raises(InputError, match='deterministic and has no operating points; leave out steps'):
        save(source, tmp_path / 'x.safetensors', steps=3)
    with pytest.raises(InputError, match='must end in'):
        save(source, tmp_path / 'x.onnx')
    install()
    with pytest.raises(InputError, match='damaged'):
        spandrel.ModelLoader().load_from_state_dict({SETTINGS: torch.tensor([123, 125], dtype=torch.int32)})
