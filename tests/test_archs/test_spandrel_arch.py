"""Networks that spandrel knows, as networks of ours: tiny random ones, compared with spandrel's own call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stochastic_refine.archs import PredictRefineNet, build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.pretrained import read_weights, require_network
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer

pytest.importorskip('spandrel')

DENOISER = {'type': 'RefineUNet', 'in_channels': 6, 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1,
            'noise_conditioned': True}


def network(name: str) -> torch.nn.Module:
    from spandrel.architectures import KBNet, SwinIR, Uformer
    torch.manual_seed(0)
    if name == 'SwinIR':  # whose constructor computes with values
        return SwinIR.SwinIR(upscale=1, img_size=32, window_size=8, depths=[1, 1], embed_dim=12, num_heads=[2, 2], upsampler='')
    if name == 'Uformer':  # which wants squares
        return Uformer.Uformer(img_size=128, embed_dim=8, depths=[1] * 9, num_heads=[1] * 9)
    return KBNet.KBNet_s(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])


@pytest.fixture(params=['SwinIR', 'Uformer', 'KBNet_s'])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.save({'params': network(request.param).state_dict()}, tmp_path / 'x.pth')
    return tmp_path / 'x.pth'


def test_restores_as_spandrel_does_and_is_rebuilt_from_its_options(checkpoint: Path) -> None:
    from spandrel import ModelLoader
    expected = ModelLoader().load_from_file(checkpoint)
    found = require_network(read_weights(checkpoint), 'x')
    assert found.metadata['network']['type'] == 'SpandrelNet'
    net = build_arch(found.metadata['network'])
    net.load_state_dict(found.params)
    image = torch.rand(1, 3, 36, 52)
    with torch.inference_mode():
        assert torch.equal(net.eval()(image).clamp(0, 1), expected(image))
    assert plan_arch(found.metadata['network']).state_dict().keys() == found.params.keys()


def test_is_weights_of_the_deblurrer_and_a_predictor_that_trains(tmp_path: Path) -> None:
    torch.save(network('SwinIR').state_dict(), tmp_path / 'x.pth')
    image = torch.rand(3, 24, 33)
    result = Deblurrer.from_pretrained(tmp_path / 'x.pth', device='cpu', precision='float32')(image)
    net = PredictRefineNet({'pretrained': str(tmp_path / 'x.pth')}, DENOISER).eval()
    initial = net.predict(image[None])
    assert torch.allclose(initial[0].clamp(0, 1).permute(1, 2, 0), torch.from_numpy(result.image), atol=1e-6)
    initial.mean().backward()
    assert all(parameter.grad is not None for parameter in net.predictor.parameters())


def test_other_purposes_are_refused(tmp_path: Path) -> None:
    from spandrel.architectures.SwinIR import SwinIR
    torch.save(SwinIR(upscale=2, img_size=32, window_size=8, depths=[1], embed_dim=12, num_heads=[2],
                      upsampler='pixelshuffledirect').state_dict(), tmp_path / 'x.pth')
    with pytest.raises(InputError, match='SwinIR is for SR, at 2 times the size'):
        require_network(read_weights(tmp_path / 'x.pth'), 'x')


@pytest.mark.parametrize('options, words', [
    ({'architecture': 'SwinR', 'network': 'SwinIR'}, 'did you mean SwinIR'),
    ({'architecture': 'SwinIR', 'network': 'Popen'}, "no network 'Popen'"),
    ({'architecture': 'SwinIR', 'network': 'SwinIR', 'settings': {'colour': 1}}, 'cannot be built'),
])
def test_bad_options_are_one_sentence(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_arch({'type': 'SpandrelNet', **options})
