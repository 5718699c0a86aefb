"""StochasticRefineModel: Eq. (6) as its loss, and validation by the restorer that everyone uses."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import for_test, unet
from test_restoration_model import batch, loader, step, validate, weights

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.predict_refine_arch import final_output
from stochastic_refine.data.random_streams import seed_iteration, stream_seed
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.weights import load_network


def test_loss_is_the_l1_distance_between_the_noise_and_its_prediction(build_model, refine_options):
    del refine_options['train']['initial_opt']
    refine_options['network_g']['predictor'] = unet()  # with the global skip its last layer is zero and stops the gradient
    refine_options['train'].update(precision='float32', accumulate=1)
    model = build_model(refine_options)
    data = batch()
    seed_iteration(stream_seed('iteration', refine_options['manual_seed'], 0, 1))
    output = model.net_g(data['lq'], gt=data['gt'])
    expected = (output['noise'] - output['noise_prediction']).abs().mean().item()
    step(model, data)
    assert model.log_dict == {'l_noise': pytest.approx(expected, rel=1e-6)}
    # Eq. (6) alone trains the predictor through the denoiser
    assert all(p.grad.norm() > 0 for p in model.net_g.predictor.parameters() if p.dim() > 1)


def test_initial_loss_is_added_with_its_weight(build_model, refine_options):
    refine_options['train'].update(precision='float32', accumulate=1)
    refine_options['train']['initial_opt']['loss_weight'] = 3.0
    model = build_model(refine_options)
    data = batch()
    expected = 3 * (model.net_g.predict(data['lq']) - data['gt']).abs().mean().item()
    step(model, data)
    assert list(model.log_dict) == ['l_noise', 'l_initial']
    assert model.log_dict['l_initial'] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('predictor', [
    unet(),
    {'type': 'HINet', 'wf': 4, 'depth': 3, 'hin_position_left': 1, 'hin_position_right': 2},
    {'type': 'MIMOUNet', 'num_res': 1, 'base_channel': 8},
    {'type': 'NAFNet', 'width': 4, 'enc_blk_nums': [1, 1], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1]},
], ids=lambda options: options['type'])
def test_frozen_predictor_stays_as_loaded(build_model, refine_options, tmp_path, predictor):
    torch.manual_seed(9)
    donor = build_arch(predictor)
    torch.save({'params': donor.state_dict()}, tmp_path / 'predictor.pth')
    refine_options['network_g']['predictor'] = {**predictor, 'pretrained': str(tmp_path / 'predictor.pth'), 'frozen': True}
    del refine_options['train']['initial_opt']
    model = build_model(refine_options)
    before = weights(model.net_g.denoiser)
    for iteration in (1, 2):
        step(model, batch(), iteration)
    assert torch.equal(weights(model.net_g.predictor), weights(donor))
    assert torch.equal(weights(model.net_g_ema.predictor), weights(donor))
    assert not torch.equal(weights(model.net_g.denoiser), before)
    assert 'pretrained' not in model.checkpoint_metadata()['network']['predictor']
    data = batch()
    torch.testing.assert_close(model.net_g.predict(data['lq']), final_output(donor, donor.eval()(data['lq'])))


def test_without_a_predictor_the_image_itself_is_modelled(build_model, refine_options):
    refine_options['network_g']['predictor'] = None
    model = build_model(refine_options)
    step(model, batch())
    assert list(model.log_dict) == ['l_noise']
    assert list(validate(model, refine_options)) == ['vivid/psnr', 'faithful/psnr']


def test_one_pass_scores_the_initial_prediction_once_and_every_point(build_model, refine_options):
    model = build_model(refine_options)
    step(model, batch())  # so that the average is not the network
    data = loader(refine_options).dataset[1]
    model.feed_data({'lq': data['lq'][None], 'gt': data['gt'][None]})
    calls = []
    model.net_g_ema.predictor.register_forward_hook(lambda *_: calls.append(1))
    results = model.restorations()
    assert len(calls) == 1 and list(results) == ['initial', 'vivid', 'faithful']
    restorer = Restorer(model.net_g_ema)
    points = refine_options['val']['operating_points']
    assert torch.equal(results['initial'][0], restorer.predict(data['lq']).clamp(0, 1))
    faithful = restorer.restore(data['lq'], OperatingPoint(**points['faithful']), keep_samples=True)
    torch.testing.assert_close(results['faithful'][0], faithful.samples.mean(0))
    assert faithful.std.max() > 1e-3  # three different samples
    assert torch.equal(results['vivid'][0], restorer.restore(data['lq'], OperatingPoint(**points['vivid'])).image)


def test_validation_repeats_to_the_last_digit_and_leaves_the_random_state_alone(build_model, refine_options):
    model = build_model(refine_options)
    first = dict(validate(model, refine_options))
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    before = torch.get_rng_state()
    assert validate(model, refine_options) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == {'initial/psnr', 'vivid/psnr', 'faithful/psnr'}
    refine_options['val']['operating_points']['vivid']['seed'] = 1
    other = validate(build_model(refine_options), refine_options)
    assert other['vivid/psnr'] != first['vivid/psnr'] and other['faithful/psnr'] == first['faithful/psnr']


def test_a_checkpoint_alone_rebuilds_the_network_that_was_scored(build_model, refine_options):
    model = build_model(refine_options)
    step(model, batch())
    model.save(0, 1)
    scores = dict(validate(model, refine_options))
    path = Path(model.opt['path']['models']) / 'net_g_1.pth'
    net, points, metadata = load_network(path)
    assert points == model.operating_points and metadata['iteration'] == 1
    assert not torch.equal(weights(model.net_g), weights(net))
    assert torch.equal(weights(model.net_g_ema), weights(net))
    laid_out = [[parameter.stride() for parameter in each.parameters()] for each in (model.net_g, model.net_g_ema)]
    assert laid_out[0] == laid_out[1]  # in another layout convolutions round differently
    tested = build_model(for_test(refine_options, path), seed=5)
    assert validate(tested, refine_options) == scores


@pytest.mark.parametrize('val, fragments', [
    ({'finalvariance': 0.5}, ('finalvariance', 'final_variance')),
    ({'sampler': 'dim'}, ('val', "'dim'", 'ddim')),
    ({'steps': 0}, ('val', 'steps')),
    ({'steps': 5, 'operating_points': {'a': {}}}, ("'steps'", 'operating_points')),
    ({'operating_points': {'a': {'stpes': 5}}}, ('operating_points: a', 'stpes', 'steps')),
    ({'operating_points': {'a': {'eta': 2}}}, ('operating_points: a', 'eta')),
    ({'operating_points': {'initial': {}}}, ("'initial'", )),
    ({'operating_points': {'a': None}}, ('operating_points', )),
    ({'operating_points': ['a']}, ('operating_points', )),
])
def test_wrong_operating_points_are_refused(build_model, refine_options, val, fragments):
    refine_options['val'] = {'val_freq': 1, 'save_img': False, **val}
    with pytest.raises(InputError) as error:
        build_model(refine_options)
    assert all(fragment in str(error.value) for fragment in fragments)


def test_a_single_point_is_called_sample(build_model, refine_options):
    refine_options['val'] = {'val_freq': 1, 'save_img': False, 'steps': 1, 'pbar': False, 'tile': 64, 'precision': 'bfloat16'}
    assert build_model(refine_options).operating_points == {'sample': OperatingPoint(steps=1)}


@pytest.mark.parametrize('key', ['pixel_opt', 'perceptual_opt'])
def test_losses_of_deterministic_networks_are_refused(build_model, refine_options, key):
    refine_options['train'][key] = {'type': 'L1Loss'}
    with pytest.raises(InputError, match=f'{key} has no meaning.*initial_opt'):
        build_model(refine_options)


def test_another_arch_of_basicsr_can_be_the_predictor(build_model, refine_options):
    refine_options['network_g']['predictor'] = {'type': 'SRVGGNetCompact', 'num_feat': 4, 'num_conv': 1, 'upscale': 1}
    model = build_model(refine_options)
    step(model, batch())
    assert set(model.log_dict) == {'l_noise', 'l_initial'}
    refine_options['network_g']['denoiser'] = unet(in_channels=6, noise_conditionned=True)
    with pytest.raises(InputError, match='denoiser: RefineUNet has no option .noise_conditionned.; did you mean'):
        build_model(refine_options)


def test_a_flow_trains_and_is_validated(build_model, refine_options):
    refine_options['network_g'].update(refiner='flow', start_noise=0.05)
    refine_options['val']['operating_points'] = {'two': {}, 'mean': {'steps': 1, 'num_samples': 3, 'average': True}}
    model = build_model(refine_options)
    assert model.operating_points['two'] == OperatingPoint('flow_euler', steps=2)
    step(model, batch())
    assert set(model.log_dict) == {'l_flow', 'l_initial'}
    model.save(0, 1)
    scores = dict(validate(model, refine_options))
    assert scores.keys() == {'initial/psnr', 'two/psnr', 'mean/psnr'}
    path = Path(model.opt['path']['models']) / 'net_g_1.pth'
    net, points, _ = load_network(path)
    assert points == model.operating_points and net.flow.start_noise == 0.05
    assert validate(build_model(for_test(refine_options, path), seed=5), refine_options) == scores


@pytest.mark.parametrize('change, words', [
    ({'train': {'noise_opt': {'type': 'NoisePredictionLoss'}}}, 'noise_opt has no meaning.*refiner: flow.*flow_opt'),
    ({'val': {'operating_points': {'a': {'sampler': 'ddim'}}}}, 'val: a.*refiner is a flow.*ddim'),
    ({'val': {'operating_points': {'a': {'final_variance': 0.1}}}}, 'final_variance means nothing'),
])
def test_what_means_nothing_to_a_flow_is_refused(build_model, refine_options, change, words):
    refine_options['network_g'].update(refiner='flow')
    refine_options['val'].pop('operating_points', None)
    for key, values in change.items():
        refine_options[key].update(values)
    with pytest.raises(InputError, match=words):
        model = build_model(refine_options)
        model.check_options(model.opt)
