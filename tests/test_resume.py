"""Resuming: the same batches, random numbers, weights and states as without an interruption, bit for bit."""

from __future__ import annotations

import copy
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, can_shard, free_port, python_environment, run_python, write_yaml
from launched import iterations
from torch import nn

from stochastic_refine.checkpoints import read_checkpoint
from stochastic_refine.checkpoints.sharded import is_sharded, read_sharded
from stochastic_refine.data.random_streams import Draw, seed_item, seed_iteration, stream_seed
from stochastic_refine.errors import InputError

SHARDED = pytest.param(True, marks=pytest.mark.skipif(not can_shard(), reason='PyTorch before 2.8 writes no shards'))


def assert_equal(a, b, where='') -> None:
    """Nested dicts and lists of tensors and plain values."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}/{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f'{where}/{i}')
    else:
        assert a == b, where


def read(path: Path):
    return read_sharded(path) if path.is_dir() else torch.load(path, weights_only=True)


def forget_after(folder: Path, iteration: int) -> None:
    """Remove the checkpoints after an iteration, as if the training had been killed before them."""
    for path in [*folder.glob('models/*'), *folder.glob('training_states/*')]:
        number = path.stem.removeprefix('net_g_')
        if number == 'latest' or int(number) > iteration:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# ---------------------------------------------------------------- the order of the items and their random numbers


@pytest.fixture
def sampler(parsed):
    """A function that makes a sampler over seven items, thrice each."""
    def make(replicas=1, rank=0, seed=5):
        from stochastic_refine.data.resumable_sampler import ResumableSampler
        sampler = ResumableSampler(range(7), replicas, rank, 3)
        sampler.seed = seed
        return sampler
    return make


def test_an_epoch_can_be_entered_in_its_middle(sampler):
    whole, resumed = sampler(), sampler()
    resumed.resume(2, 8)
    assert len(resumed) == len(whole) == 21  # an epoch is no shorter
    for epoch, passed in ((2, 8), (3, 0), (2, 8)):
        for each in (whole, resumed):
            each.set_epoch(epoch)
        draws = list(whole)
        assert list(resumed) == draws[passed:] and sorted(draw.index for draw in draws) == sorted([*range(7)] * 3)


def test_order_and_random_numbers_follow_seed_and_epoch(sampler):
    seeds, orders = [], set()
    for seed, epoch in ((5, 0), (5, 1), (6, 0)):
        whole = sampler(seed=seed)
        whole.set_epoch(epoch)
        seeds += [draw.seed for draw in whole]
        orders.add(tuple(draw.index for draw in whole))
    assert len(set(seeds)) == 63  # the same photo is another draw each time it comes
    assert len(orders) == 3


def test_several_processes_draw_what_one_does(sampler):
    parts = [list(sampler(3, rank)) for rank in range(3)]
    assert [draw for together in zip(*parts) for draw in together] == list(sampler())


def test_streams_cover_every_generator():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(2).tolist(), torch.randint(2**62, ()).item()

    for seed_all in (seed_item, seed_iteration):
        for seed in (0, 2**64 - 1, stream_seed('item', 3, 0, 1)):
            seed_all(seed)
            first = drawn()
            assert drawn() != first
            seed_all(seed)
            assert drawn() == first
    assert len({stream_seed(*place) for place in (('a', 1, 12), ('a', 11, 2), ('b', 1, 12), ('a', 1, 12, 0))}) == 4


@pytest.mark.parametrize('kind', ['PairedImageDataset', 'SyntheticBlurDataset'])
def test_items_do_not_depend_on_who_loads_them(parsed, restoration_options, refine_options, kind):
    """BasicSR's data sets draw from Python's generator, ours from PyTorch's."""
    from basicsr.data import build_dataset

    from stochastic_refine.integrations.basicsr.launch import _build_checked
    options = restoration_options if kind == 'PairedImageDataset' else refine_options
    opt = parsed(options)['datasets']['train']
    draws = [[Draw(i, stream_seed(j, i)) for i in range(4)] for j in range(2)]

    def load(workers):
        random.seed(workers)
        torch.manual_seed(workers)
        loader = torch.utils.data.DataLoader(_build_checked(build_dataset, opt), batch_sampler=draws, num_workers=workers)
        return list(loader)

    alone, shared = load(0), load(2)
    assert_equal(alone, shared)
    assert not torch.equal(alone[0]['gt'], alone[1]['gt'])  # other random numbers, other crops


# ---------------------------------------------------------------- models


def train(model, iterations) -> None:
    for i in iterations:
        generator = torch.Generator().manual_seed(i)
        model.update_learning_rate(i)
        model.feed_data({key: torch.rand(2, 3, 32, 32, generator=generator) for key in ('lq', 'gt')})
        model.optimize_parameters(i)


def interrupted(build_model, parsed, options):
    """A model after six iterations, and one that stopped after three and was built anew."""
    from stochastic_refine.models.training_state import load_resume_state
    whole = build_model(options)
    train(whole, range(1, 4))
    whole.save(0, 3)
    torch.rand(5)  # as a validation may
    train(whole, range(4, 7))
    opt = {**parsed(options), 'auto_resume': True}
    state = load_resume_state(opt)
    resumed = build_model({**options, 'path': opt['path'], 'manual_seed': opt['manual_seed']}, seed=9)
    resumed.resume_training(state)
    train(resumed, range(4, 7))
    return whole, resumed


def state_of(model):
    return {name: getattr(model, name).state_dict() for name in ('net_g', 'net_g_ema', 'net_d') if hasattr(model, name)}


@pytest.mark.parametrize('sharded', [False, SHARDED])
def test_an_adversarial_training_resumes_with_scores_and_discriminator(
        build_model, parsed, restoration_options, monkeypatch, sharded):
    from basicsr.utils.registry import ARCH_REGISTRY
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Critic', type('Critic', (nn.Conv2d, ), {}))
    restoration_options.update(
        model_type='AdversarialRestorationModel',
        network_d={'type': 'Critic', 'in_channels': 3, 'out_channels': 1, 'kernel_size': 5, 'stride': 3})
    restoration_options['train'].update(
        ema_decay=0.9, gan_pool_size=2, optim_d={'type': 'Adam', 'lr': 0.01}, optim_g={'type': 'Adam', 'lr': 0.01},
        gan_opt={'type': 'GANLoss', 'gan_type': 'lsgan', 'real_label_val': 1.0, 'loss_weight': 0.1})
    restoration_options['logger']['sharded_checkpoints'] = sharded
    restoration_options['path']['param_key_g'] = 'state_dict'  # no file has it: the averaged weights would be taken
    whole, resumed = interrupted(build_model, parsed, restoration_options)
    assert_equal(state_of(whole), state_of(resumed))
    assert_equal(whole.training_state(0, 6), resumed.training_state(0, 6))
    assert len(whole.score_means.batches['real']) == 2


def test_progressive_patches_resume(build_model, parsed, restoration_options):
    restoration_options['datasets']['train'].update(gt_sizes=[8, 16], mini_batch_sizes=[2, 1], iters=[4, 100])
    whole, resumed = interrupted(build_model, parsed, restoration_options)
    assert_equal(state_of(whole), state_of(resumed))


@pytest.mark.parametrize('scheduler', [
    {'type': 'OneCycleLR', 'max_lr': 0.2, 'total_steps': 20},
    {'type': 'CyclicLR', 'base_lr': 0.01, 'max_lr': 0.1, 'step_size_up': 4},
    {'type': 'CosineAnnealingWarmRestarts', 'T_0': 3},
    {'type': 'ExponentialLR', 'gamma': 0.7},
    {'type': 'MultiStepRestartLR', 'milestones': [2, 5], 'restarts': [4], 'gamma': 0.3},
    {'type': 'CosineAnnealingRestartCyclicLR', 'periods': [3, 9], 'restart_weights': [1, 1], 'eta_mins': [0.05, 0.01]},
], ids=lambda options: options['type'])
def test_schedules_resume(build_model, parsed, restoration_options, scheduler):
    restoration_options['train'].update(scheduler=scheduler, optim_g={'type': 'SGD', 'lr': 0.1, 'momentum': 0.9})
    whole, resumed = interrupted(build_model, parsed, restoration_options)
    assert_equal(state_of(whole), state_of(resumed))
    assert_equal(whole.training_state(0, 6), resumed.training_state(0, 6))


@pytest.mark.parametrize('optimizer, scheduler, expected', [
    ({'lr': 0.01}, {}, lambda i: 0.005 * (1 + math.cos(math.pi * (i - 1) / 6))),
    ({}, {'T_max': 12}, lambda i: 0.05 * (1 + math.cos(math.pi * (i - 1) / 12))),
    ({'lr': 0.02}, {'type': 'MultiStepLR', 'milestones': [5], 'gamma': 0.1}, lambda i: 0.02 if i < 6 else 0.002),
])
@pytest.mark.parametrize('sharded', [False, SHARDED])
def test_changed_rates_and_schedules_hold_from_the_resumed_iteration_on(build_model, parsed, restoration_options, sharded,
                                                                        optimizer, scheduler, expected):
    """As if they had been there from the beginning; momenta go on."""
    from stochastic_refine.models.training_state import load_resume_state
    restoration_options['train'].update(scheduler={'type': 'TrueCosineAnnealingLR', 'T_max': 6},
                                        optim_g={'type': 'SGD', 'lr': 0.1, 'momentum': 0.9})
    restoration_options['logger']['sharded_checkpoints'] = sharded
    model = build_model(restoration_options)
    train(model, range(1, 4))
    model.save(0, 3)
    options = copy.deepcopy(restoration_options)
    options['train']['optim_g'].update(optimizer)
    options['train']['scheduler'] = scheduler if 'type' in scheduler else {**options['train']['scheduler'], **scheduler}
    opt = {**parsed(options), 'auto_resume': True}
    state = load_resume_state(opt)
    resumed = build_model({**options, 'path': opt['path'], 'manual_seed': opt['manual_seed']}, seed=9)
    resumed.resume_training(state)
    for own, other in zip(resumed.optimizer_g.state.values(), model.optimizer_g.state.values(), strict=True):
        assert torch.equal(own['momentum_buffer'], other['momentum_buffer'])
    seen = []
    for i in range(4, 7):
        train(resumed, [i])
        seen.append(resumed.get_current_learning_rate()[0])
    assert seen == pytest.approx([expected(i) for i in range(4, 7)])


def test_the_optimizer_of_a_resumed_training_stays(build_model, restoration_options):
    state = build_model(restoration_options).training_state(0, 1)
    restoration_options['train']['optim_g'] = {'type': 'Adam', 'lr': 0.1}
    with pytest.raises(InputError, match='train: optim_g: .* SGD, whose state is none of Adam'):
        build_model(restoration_options).resume_training(state)


def test_a_state_of_other_networks_is_refused(build_model, restoration_options):
    model = build_model(restoration_options)
    state = model.training_state(0, 1)
    state['optimizers'].append(state['optimizers'][0])
    model.opt['path']['resume_state'] = '1.state'
    with pytest.raises(InputError, match='The training state 1.state does not fit'):
        model.resume_training(state)


# ---------------------------------------------------------------- which checkpoint


def test_only_whole_checkpoints_are_taken_and_leftovers_are_swept(parsed, restoration_options):
    from stochastic_refine.models.training_state import load_resume_state
    opt = {**parsed(restoration_options), 'auto_resume': True, 'network_d': {'type': 'Critic'}, 'manual_seed': 77}
    opt['path'].update(param_key_g='params_ema', pretrain_network_g='other.pth')
    states, models = Path(opt['path']['training_states']), Path(opt['path']['models'])
    assert load_resume_state(copy.deepcopy(opt)) is None
    for folder in (states, models):
        folder.mkdir(parents=True)
    for i in (2, 4, 6, 8):
        torch.save({'iter': i, 'manual_seed': 3, 'optimizers': [], 'schedulers': []}, states / f'{i}.state')
        for label in ('g', 'd'):
            torch.save({'params': {'w': torch.zeros(100)}}, models / f'net_{label}_{i}.pth')
    (states / '8.state').write_bytes((states / '8.state').read_bytes()[:-30])
    (models / 'net_d_6.pth').write_bytes((models / 'net_d_6.pth').read_bytes()[:-30])
    (models / 'net_d_4.pth').unlink()
    (models / '.net_g_10.x.pth').touch()
    (states / '.10.state').mkdir()
    (states / '.10.state' / 'shard.safetensors').touch()
    taken = copy.deepcopy(opt)
    assert load_resume_state(taken)['iter'] == 2
    assert taken['path']['pretrain_network_g'] == str(models / 'net_g_2.pth') and taken['path']['param_key_g'] == 'params'
    assert taken['manual_seed'] == 3  # the seed that the training was started with
    assert not [path for folder in (states, models) for path in folder.iterdir() if path.name.startswith('.')]
    taken = copy.deepcopy(opt)
    taken['path']['ignore_resume_networks'] = ['network_d']
    assert load_resume_state(taken)['iter'] == 6
    (models / 'net_g_2.pth').unlink()
    with pytest.raises(InputError, match='has its networks beside it'):
        load_resume_state(copy.deepcopy(opt))


@pytest.mark.parametrize('given, fragments', [
    ('models/net_g_2.pth', ('holds weights or something else', 'give {root}/training_states/2.state')),
    ('models/net_g_3.pth', ('holds weights or something else', 'give {root}/training_states/4.state')),
    ('training_states', ('is a folder', 'give {root}/training_states/4.state')),
    ('', ('is a folder', 'give {root}/training_states/4.state')),
    ('training_states/4.state', ('needs {root}/models/net_g_4.pth', 'missing or cut short')),
])
def test_what_is_no_training_state_is_told_what_is(parsed, restoration_options, given, fragments):
    from stochastic_refine.models.training_state import load_resume_state
    opt = parsed(restoration_options)
    root = Path(opt['path']['models']).parent
    for folder in ('models', 'training_states'):
        (root / folder).mkdir(parents=True)
    for i in (2, 3):
        torch.save({'params': {'w': torch.zeros(100)}}, root / f'models/net_g_{i}.pth')
    for i in (2, 4):
        torch.save({'iter': i, 'optimizers': [], 'schedulers': []}, root / f'training_states/{i}.state')
    opt['path']['resume_state'] = str(root / given)
    with pytest.raises(InputError) as error:
        load_resume_state(opt)
    assert all(fragment.format(root=root) in str(error.value) for fragment in fragments), error.value


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def long_options(refine_options):
    """Ten iterations over epochs of five and two thirds batches, validated on the way, with no seed of their own."""
    del refine_options['manual_seed']
    refine_options['train'].update(total_iter=10, warmup_iter=7)
    refine_options['datasets']['train'].update(batch_size_per_gpu=3, dataset_enlarge_ratio=4, num_worker_per_gpu=2)
    refine_options['val'].update(val_freq=3, operating_points={'vivid': {'steps': 1}})
    return refine_options


@pytest.mark.parametrize('sharded', [False, SHARDED])
def test_resuming_in_mid_epoch_gives_the_bits_of_an_unbroken_run(launch, long_options, tmp_path, sharded):
    long_options['logger']['sharded_checkpoints'] = sharded
    assert launch('train', long_options).code == 0
    folder = tmp_path / 'experiments' / 'tiny'
    unbroken = {name: read(folder / name) for name in ('models/net_g_10.pth', 'training_states/10.state')}
    forget_after(folder, 6)
    long_options['datasets']['train'].update(num_worker_per_gpu=1, persistent_workers=True)
    run = launch('train', long_options, '--auto_resume')
    assert run.code == 0 and iterations(run.err) == [7, 8, 9, 10], run.err
    for name, content in unbroken.items():
        assert is_sharded(folder / name) == sharded
        assert_equal(content, read(folder / name), name)
    network = unbroken['models/net_g_10.pth']
    assert not torch.equal(*(network[key]['predictor.conv_in.weight'] for key in ('params', 'params_ema')))


def test_the_same_seed_gives_the_same_training(launch, long_options, tmp_path):
    """Also with other workers, and without the validation between."""
    weights = []
    for name, seed, workers, val in (('a', 1, 2, True), ('b', 1, 0, False), ('c', 2, 0, False)):
        options = copy.deepcopy({**long_options, 'name': name, 'manual_seed': seed})
        options['train']['total_iter'] = 4
        options['datasets']['train']['num_worker_per_gpu'] = workers
        options['val'] = options['val'] if val else None
        assert launch('train', options).code == 0
        weights.append(read_checkpoint(tmp_path / 'experiments' / name / 'models' / 'net_g_4.pth').params)
    assert_equal(weights[0], weights[1])
    assert not torch.equal(weights[0]['predictor.conv_in.weight'], weights[2]['predictor.conv_in.weight'])


@pytest.mark.slow
@pytest.mark.parametrize('sharded', [False, SHARDED])
def test_two_processes_resume_bit_for_bit(long_options, tmp_path, sharded):
    from stochastic_refine.inference.weights import load_network
    long_options['logger']['sharded_checkpoints'] = sharded
    long_options['datasets']['train'].update(batch_size_per_gpu=2, num_worker_per_gpu=0)
    path = write_yaml(tmp_path / 'options.yml', long_options)

    def torchrun() -> str:
        command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}', '-m',
                   'stochastic_refine.cli', 'train', '-opt', str(path), '--auto_resume', '--launcher', 'pytorch']
        with (tmp_path / 'output').open('w') as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=python_environment(), stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            try:
                process.wait(600)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        text = (tmp_path / 'output').read_text()
        assert process.returncode == 0, text
        return text

    torchrun()
    folder = tmp_path / 'experiments' / 'tiny'
    unbroken = {name: read(folder / name) for name in ('models/net_g_10.pth', 'training_states/10.state')}
    if sharded:
        sizes = sorted(file.stat().st_size for file in folder.glob('models/net_g_10.pth/*.safetensors'))
        assert len(sizes) == 2 and sizes[1] < 2 * sizes[0]
    forget_after(folder, 6)
    assert min(iterations(torchrun())) == 7
    for name, content in unbroken.items():
        assert_equal(content, read(folder / name), name)
    assert len(load_network(folder / 'models' / 'net_g_latest.pth')[1]) == 1


@pytest.mark.slow
@pytest.mark.parametrize('flags', [(), pytest.param(('--sharded', ), marks=SHARDED.marks)])
def test_killed_trainings_end_with_the_same_bits(tmp_path, flags):
    script = REPOSITORY / 'scripts' / 'kill_training.py'
    run = run_python(str(script), '--kills', '3', '--iterations', '40', '--seed', '1', *flags, cwd=tmp_path, seconds=600)
    assert run.returncode == 0 and 'are equal bit for bit' in run.stdout, run.stdout + run.stderr
