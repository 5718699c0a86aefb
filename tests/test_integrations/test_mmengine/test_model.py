"""StochasticRefine as mmengine's model: samples of every form, metrics, and what is refused."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
import torch
from conftest import run_python, unet

pytest.importorskip('mmengine')
from mmengine.evaluator import Evaluator  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.structures import BaseDataElement, PixelData  # noqa: E402

from stochastic_refine.errors import InputError  # noqa: E402
from stochastic_refine.integrations.mmengine import METRICS, MODELS, host  # noqa: E402

NET = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
LQ, GT = torch.rand(2, 2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def model(**options):
    torch.manual_seed(0)
    return MODELS.build({'type': 'StochasticRefine', 'net': NET, 'initial_loss': {'type': 'L1Loss'},
                         'operating_points': [{'name': 'quick', 'steps': 2}], **options})


def samples(images=GT):
    return [BaseDataElement(gt_img=image) for image in images]


def seeded_losses(net, *args):
    torch.manual_seed(1)
    return net(*args, mode='loss')


def test_every_form_of_samples_gives_the_same():
    with DefaultScope.overwrite_default_scope('mmengine'):  # another project's
        net = model(type='stochastic_refine.StochasticRefine')
    losses = seeded_losses(net, LQ, samples())
    assert set(losses) == {'loss_noise', 'loss_initial'} and all(value.requires_grad for value in losses.values())
    stacked = BaseDataElement(gt_img=GT)
    pixels = [BaseDataElement(gt_img=PixelData(data=image)) for image in GT]
    for inputs, form in ((list(LQ), samples()), ({'img': LQ}, stacked), (LQ, pixels)):
        assert seeded_losses(net, inputs, form) == losses
    tensor = net(LQ)
    for form in (samples(), stacked, None):
        predicted = net(LQ, form, mode='predict')
        assert torch.equal(torch.stack([sample.output.pred_img for sample in predicted]), tensor)


def test_images_of_0_to_255_in_bgr_score_as_those_of_0_to_1_in_rgb():
    scores = []
    bytes_lq, bytes_gt = (255 * LQ).round().byte(), (255 * GT).round().byte()
    for preprocessor, lq, gt in ((None, bytes_lq / 255, bytes_gt / 255), ({'type': 'DataPreprocessor', 'bgr_to_rgb': True},
                                                                          bytes_lq.flip(-3), bytes_gt.flip(-3))):
        net = model(data_preprocessor=preprocessor)
        outputs = net.test_step({'inputs': list(lq), 'data_samples': samples(gt)})
        evaluator = Evaluator([METRICS.build({'type': name}) for name in ('PSNR', 'SSIM')])
        evaluator.process(outputs)
        scores.append(evaluator.evaluate(len(outputs)))
        train = net.data_preprocessor({'inputs': list(lq), 'data_samples': samples(gt)}, training=True)
        scores[-1] |= {name: float(value) for name, value in seeded_losses(net, *train.values()).items()}
    assert scores[0].keys() == {'PSNR', 'SSIM', 'loss_noise', 'loss_initial'}
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)


@pytest.mark.parametrize(('options', 'words'), [
    ({'net': unet()}, 'trains PredictRefineNet'),
    ({'precision': 'half'}, 'float32 or bfloat16'),
    ({'objective': {'type': 'NoisePredictonLoss'}}, 'did you mean NoisePredictionLoss'),
    ({'operating_points': [{'name': 'quick', 'stepss': 2}]}, 'did you mean steps'),
])
def test_unusable_options_end_in_a_sentence(options, words):
    with pytest.raises(InputError, match=words):
        model(**options)


def test_images_of_another_range_are_refused_before_training_on_them():
    with pytest.raises(InputError, match='DataPreprocessor'):
        model()(255 * LQ, samples(), mode='loss')


def test_mmengine_missing_or_too_old_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, 'version', lambda name: '0.7.1')
    with pytest.raises(InputError, match='0.7.1 is too old'):
        host.check_mmengine()
    hide = ("import runpy, sys\nfrom importlib import metadata\nreal = metadata.version\n"
            "def version(name):\n    if 'mmengine' in name: raise metadata.PackageNotFoundError(name)\n    return real(name)\n"
            "metadata.version = version\nsys.modules['mmengine'] = None\nsys.argv = ['-m', 'x.py']\n"
            "runpy.run_module('stochastic_refine.integrations.mmengine', run_name='__main__', alter_sys=False)\n")
    done = run_python('-c', hide, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r'Error: .*not installed; run: pip install .*\n', done.stderr)
