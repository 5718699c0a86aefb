"""ProgressiveDistillationModel: what a student learns, what a change of stage does, and resuming in the middle of one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_restoration_model import batch, step, validate, weights

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import without_pretrained
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer

SETTINGS = {'grid_steps': 8, 'final_variance': 0.4, 'clamp': True}


@pytest.fixture
def options(refine_options, tmp_path) -> dict[str, Any]:
    """A teacher of four steps, and three iterations for a student of two and for one of one."""
    refine_options['model_type'] = 'ProgressiveDistillationModel'
    refine_options['network_g']['predictor']['frozen'] = True
    torch.manual_seed(9)
    net = build_arch(without_pretrained(refine_options['network_g']))
    for parameter in net.denoiser.parameters():  # its last layer is zero at first, so that there would be nothing to distil
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    torch.save({'params': net.state_dict()}, tmp_path / 'teacher.pth')
    refine_options['path'].update(pretrain_network_g=str(tmp_path / 'teacher.pth'), param_key_g='params_ema')
    train = refine_options['train']
    del train['initial_opt'], refine_options['val']['operating_points']
    train.update(total_iter=6, distillation={'steps': [4, 2, 1], 'iterations': [3, 3], **SETTINGS})
    train['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [3, 3], 'restart_weights': [1, 1]}
    return refine_options


def run(model, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        step(model, batch(seed=iteration), iteration)


def checkpoint(model, iteration: int) -> Path:
    return Path(model.opt['path']['models']) / f'net_g_{iteration}.pth'


def test_training_brings_one_step_of_the_student_to_two_of_the_teacher(build_model, options):
    settings = {**SETTINGS, 'clamp': False}
    options['train'].update(precision='float32', accumulate=1, ema_decay=0.8, total_iter=50,
                            optim_g={'type': 'Adam', 'lr': 0.003},
                            distillation={'steps': [2, 1], 'iterations': [50], **settings})
    options['train']['scheduler'].update(periods=[50], restart_weights=[1])
    model = build_model(options)
    lq = batch(seed=100)['lq'][0]

    def result(net, steps: int) -> torch.Tensor:
        point = OperatingPoint('ddim', steps, num_samples=4, **settings)
        return Restorer(net).restore(lq, point, keep_samples=True).samples

    teachers = result(model.teacher, 2)
    before = (result(model.teacher, 1) - teachers).square().mean()
    run(model, 1, 50)
    assert torch.equal(result(model.teacher, 2), teachers)
    assert (result(model.net_g_ema, 1) - teachers).square().mean() < 0.5 * before


def test_the_predictor_stays_as_loaded(build_model, options):
    model = build_model(options)
    before = weights(model.net_g.predictor)
    denoiser = weights(model.net_g.denoiser)
    run(model, 1, 4)
    for net in (model.net_g, model.net_g_ema, model.teacher):
        assert torch.equal(weights(net.predictor), before)
        assert not torch.equal(weights(net.denoiser), denoiser)


def test_each_stage_starts_from_the_averaged_student_of_the_last(build_model, options):
    model = build_model(options)
    first_teacher = weights(model.teacher)
    assert torch.equal(weights(model.net_g), first_teacher) and model.operating_points == {
        'distilled_2': OperatingPoint('ddim', 2, **SETTINGS)}
    run(model, 1, 3)
    averaged = weights(model.net_g_ema)
    assert torch.equal(weights(model.teacher), first_teacher) and not torch.equal(weights(model.net_g), averaged)
    for group in model.optimizer_g.param_groups:
        group['lr'] = 0.0
    step(model, batch(), 4)  # an update of nothing, so that what the stage started from is still there
    for net in (model.teacher, model.net_g, model.net_g_ema):
        assert torch.equal(weights(net), averaged)
    assert {int(entry['step']) for entry in model.optimizer_g.state.values()} == {1}
    assert model.operating_points == {'distilled_1': OperatingPoint('ddim', 1, **SETTINGS)} and model.teacher_point.steps == 2


def test_a_stage_ends_with_a_checkpoint_that_restores_by_itself(build_model, options):
    model = build_model(options)
    run(model, 1, 6)
    lq = batch()['lq'][0]
    for iteration, steps in ((3, 2), (6, 1)):
        deblurrer = Deblurrer.from_pretrained(checkpoint(model, iteration), device='cpu', precision='float32')
        point = OperatingPoint('ddim', steps, **SETTINGS)
        assert deblurrer.points == {f'distilled_{steps}': point}
    expected = Restorer(model.net_g_ema).restore(lq, point).image
    torch.testing.assert_close(torch.from_numpy(deblurrer(lq).image).permute(2, 0, 1), expected)
    assert validate(model, options).keys() == {'initial/psnr', 'distilled_1/psnr'}


@pytest.mark.parametrize('stop', [2, 3, 5], ids=['first stage', 'between', 'second stage'])
def test_resuming_gives_what_an_unbroken_run_gives(build_model, options, stop):
    unbroken = build_model(options)
    run(unbroken, 1, 6)
    broken = build_model(options)
    run(broken, 1, stop)
    broken.save(0, stop)
    state = torch.load(Path(broken.opt['path']['training_states']) / f'{stop}.state', weights_only=True)
    resumed_options = copy.deepcopy(options)
    resumed_options['path'].update(pretrain_network_g=str(checkpoint(broken, stop)), param_key_g='params')  # as BasicSR does
    resumed = build_model(resumed_options, seed=1)
    resumed.resume_training(state)
    assert resumed.operating_points == broken.operating_points
    run(resumed, stop + 1, 6)
    for name in ('net_g', 'net_g_ema', 'teacher'):
        assert torch.equal(weights(getattr(resumed, name)), weights(getattr(unbroken, name))), name


@pytest.mark.slow
def test_the_launcher_goes_through_the_stages_and_resumes(launch, options, tmp_path):
    options['val']['val_freq'] = 3
    options['datasets']['train']['dataset_enlarge_ratio'] = 2
    first = launch('train', options)
    assert first.code == 0, first.err
    assert 'distilled_2/psnr' in first.err and 'distilled_1/psnr' in first.err and 'stage 2' in first.err
    folder = tmp_path / 'experiments/tiny'
    whole = torch.load(folder / 'models/net_g_6.pth', weights_only=True)['params_ema']
    for path in (*folder.glob('models/net_g_6*'), *folder.glob('training_states/6*')):
        path.unlink()
    again = launch('train', options, '--auto_resume')
    assert again.code == 0 and 'iter: 4.' in again.err, again.err
    resumed = torch.load(folder / 'models/net_g_6.pth', weights_only=True)['params_ema']
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


@pytest.mark.parametrize('change, fragments', [
    ({'train.distillation': None}, ('distillation', 'for example')),
    ({'train.distillation.steps': 8}, ('distillation', 'lists of whole numbers')),
    ({'train.distillation.steps': [4, 3, 1]}, ('dividing', '3 follows 4')),
    ({'train.distillation.steps': [4, 4, 1]}, ('fall', '4 follows 4')),
    ({'train.distillation.steps': [4, 2]}, ('2 for 2 iterations', )),
    ({'train.distillation.iterations': [3, 4]}, ('7', 'total_iter 6')),
    ({'train.distillation.grid_steps': 6}, ('train: distillation', 'grid_steps', '6')),
    ({'train.distillation.final_varianse': 0.1}, ('train: distillation', 'final_varianse', 'final_variance')),
    ({'train.distillation.sampler': 'ancestral'}, ('ddim', 'remove sampler')),
    ({'train.distillation.eta': 0.5}, ('eta 0', )),
    ({'train.initial_opt': {'type': 'L1Loss'}}, ('initial_opt has no meaning', )),
    ({'train.noise_opt': {'type': 'NoisePredictionLoss', 'weight_limit': 9.0}}, ('weight_limit has no meaning', )),
    ({'network_g.predictor.frozen': False}, ('predictor', 'frozen: true')),
    ({'path.pretrain_network_g': None}, ('pretrain_network_g', 'first teacher')),
    ({'val.steps': 3}, ('val', 'remove steps')),
    ({'val.operating_points': {'a': {}}}, ('val', 'remove operating_points')),
])
def test_wrong_options_are_refused(build_model, options, change, fragments):
    for path, value in change.items():
        *parents, key = path.split('.')
        block = options
        for parent in parents:
            block = block[parent]
        block[key] = value
    with pytest.raises(InputError) as error:
        build_model(options)
    assert all(fragment in str(error.value) for fragment in fragments), error.value
