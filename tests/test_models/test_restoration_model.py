"""RestorationModel: one optimizer step, EMA, what stops it, what it saves and how it validates."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import for_test, unet
from torch import nn
from torch.utils.data import DataLoader

from stochastic_refine.checkpoints import read_checkpoint
from stochastic_refine.errors import InputError


def batch(size=4, seed=0, side=16):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(size, 3, side, side, generator=generator) for key in ('lq', 'gt')}


def step(model, data, iteration=1):
    model.feed_data(data)
    model.optimize_parameters(iteration)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()]).clone()


@pytest.fixture
def batch_norm_net(parsed):
    """The type name of a network with buffers, registered while the test runs."""
    from basicsr.utils.registry import ARCH_REGISTRY

    class BatchNormNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))

        def forward(self, x):
            return self.body(x)

    ARCH_REGISTRY.register(BatchNormNet)
    yield 'BatchNormNet'
    del ARCH_REGISTRY._obj_map['BatchNormNet']


# ---------------------------------------------------------------- one step


@pytest.mark.parametrize('size, parts', [(4, 4), (4, 1), (3, 2), (2, 5)])
def test_accumulated_parts_give_the_gradient_and_update_of_the_whole(build_model, restoration_options, size, parts):
    results = []
    for accumulate in (1, parts):
        restoration_options['train']['accumulate'] = accumulate
        model = build_model(restoration_options)
        before = weights(model.net_g)
        calls = []
        model.net_g.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(len(args[0])))
        step(model, batch(size))
        assert len(calls) == min(accumulate, size) and sum(calls) == size
        results.append((torch.cat([p.grad.flatten() for p in model.net_g.parameters()]), weights(model.net_g) - before,
                        model.log_dict['l_pix']))
    (gradient, update, loss), (gradient_parts, update_parts, loss_parts) = results
    torch.testing.assert_close(gradient_parts, gradient, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(update_parts, -0.1 * gradient, rtol=1e-3, atol=1e-7)
    assert loss_parts == pytest.approx(loss, rel=1e-6)
    assert update.norm() > 0.01


def test_a_perceptual_loss_alone(build_model, restoration_options, monkeypatch):
    from torchvision.models import vgg
    features = nn.Sequential(nn.Conv2d(3, 4, 3))
    monkeypatch.setattr(vgg, 'vgg19', lambda pretrained: SimpleNamespace(features=features))
    restoration_options['train'].update(pixel_opt=None, perceptual_opt={
        'type': 'PerceptualLoss', 'layer_weights': {'conv1_1': 1.0}, 'criterion': 'l2'})
    model = build_model(restoration_options)
    before = weights(model.net_g)
    step(model, batch())
    assert list(model.log_dict) == ['l_percep'] and not torch.equal(weights(model.net_g), before)
    assert not features[0].weight.requires_grad


def test_grad_clip_bounds_the_update(build_model, restoration_options):
    restoration_options['train']['grad_clip'] = 1e-3
    model = build_model(restoration_options)
    before = weights(model.net_g)
    step(model, batch())
    assert (weights(model.net_g) - before).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_ema_is_the_closed_form_and_copies_buffers(build_model, restoration_options, batch_norm_net):
    decay, steps = 0.7, 4
    restoration_options['network_g'] = {'type': batch_norm_net}
    restoration_options['train']['ema_decay'] = decay
    model = build_model(restoration_options)
    history = [weights(model.net_g)]
    assert torch.equal(weights(model.net_g_ema), history[0])
    for i in range(steps):
        step(model, batch(seed=i), i + 1)
        history.append(weights(model.net_g))
    expected = decay**steps * history[0] + sum((1 - decay) * decay**(steps - i) * history[i] for i in range(1, steps + 1))
    torch.testing.assert_close(weights(model.net_g_ema), expected, rtol=1e-5, atol=1e-7)
    buffers, averaged = dict(model.net_g.named_buffers()), dict(model.net_g_ema.named_buffers())
    assert buffers['body.1.num_batches_tracked'] == steps
    assert all(torch.equal(averaged[name], value) for name, value in buffers.items())


def test_networks_are_laid_out_alike_wherever_they_compute(build_model, restoration_options):
    """Else the averaged network's score in validation differs in the last digits from that of its checkpoint in a test."""
    from stochastic_refine.archs.build import build_arch
    from stochastic_refine.inference.deblurrer import Deblurrer
    restoration_options['train']['ema_decay'] = 0.5
    model = build_model(restoration_options)
    nets = [model.net_g, model.net_g_ema, Deblurrer(build_arch(restoration_options['network_g']), device='cpu').net]
    for net in nets:
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in net.parameters() if p.dim() == 4)


def test_bfloat16_keeps_weights_gradients_and_averages_in_float32(build_model, restoration_options):
    restoration_options['train'].update(precision='bfloat16', ema_decay=0.9)
    model = build_model(restoration_options)
    seen = []
    model.net_g.conv_out.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    step(model, batch())
    assert seen == [torch.bfloat16]
    tensors = [*model.net_g.parameters(), *model.net_g_ema.parameters(), *(p.grad for p in model.net_g.parameters())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


# ---------------------------------------------------------------- what stops it


@pytest.mark.parametrize('key', ['lq', 'gt'])
def test_not_a_number_stops_before_the_update(build_model, restoration_options, key):
    restoration_options['train']['ema_decay'] = 0.5
    model = build_model(restoration_options)
    step(model, batch(), 1)
    model.save(0, 1)
    before, average = weights(model.net_g), weights(model.net_g_ema)
    data = batch(seed=1)
    data[key][0, 0, 0, 0] = math.nan  # in the target it gives the L1 loss, but not its gradient, the value NaN
    with pytest.raises(InputError, match=r'iteration 2, before the update.*l_pix nan.*checkpoint of iteration 1 is intact'):
        step(model, data, 2)
    assert torch.equal(weights(model.net_g), before) and torch.equal(weights(model.net_g_ema), average)


def test_weights_that_are_not_finite_are_not_saved(build_model, restoration_options):
    model = build_model(restoration_options)
    model.save(0, 1)
    with torch.no_grad():
        next(model.net_g.parameters())[0] = math.inf
    with pytest.raises(InputError, match='iteration 2.*not finite.*iteration 1 is intact'):
        model.save(0, 2)
    assert os.listdir(model.opt['path']['models']) == ['net_g_1.pth']


def test_interrupt_saves_at_the_end_of_the_iteration(build_model, restoration_options):
    model = build_model({**restoration_options, 'iterations_per_epoch': 2})
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match='saved at iteration 5'):
        step(model, batch(), 5)
    state = torch.load(Path(model.opt['path']['training_states']) / '5.state', weights_only=True)
    assert state['iter'] == 5 and state['epoch'] == 2
    saved = read_checkpoint(Path(model.opt['path']['models']) / 'net_g_5.pth').params
    assert torch.equal(saved['conv_in.weight'], model.net_g.conv_in.weight)
    with pytest.raises(KeyboardInterrupt):  # a second one does not wait
        os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_during_validation_saves_too(build_model, restoration_options):
    model = build_model(restoration_options)
    step(model, batch(), 2)
    model.stop_requested = True
    with pytest.raises(KeyboardInterrupt, match='saved at iteration 2'):
        validate(model, restoration_options, current_iter=3)  # BasicSR's count after two iterations
    assert os.listdir(model.opt['path']['training_states']) == ['2.state']


# ---------------------------------------------------------------- saving and resuming


def test_resuming_restores_optimizer_scheduler_average_and_weights(build_model, restoration_options):
    restoration_options['train'].update(ema_decay=0.5, optim_g={'type': 'AdamW', 'lr': 0.01})
    model = build_model(restoration_options)
    for i in range(1, 4):
        model.update_learning_rate(i)
        step(model, batch(seed=i), i)
    model.save(1, 3)
    paths = {key: Path(model.opt['path'][key]) for key in ('models', 'training_states')}

    restoration_options['path']['pretrain_network_g'] = str(paths['models'] / 'net_g_3.pth')
    resumed = build_model(restoration_options, seed=1)
    resumed.resume_training(torch.load(paths['training_states'] / '3.state', weights_only=True))
    assert resumed.get_current_learning_rate() == model.get_current_learning_rate() != [0.01]
    for trained in (model, resumed):
        trained.update_learning_rate(4)
        step(trained, batch(seed=4), 4)
    assert resumed.get_current_learning_rate() == model.get_current_learning_rate()
    assert torch.equal(weights(resumed.net_g), weights(model.net_g))
    assert torch.equal(weights(resumed.net_g_ema), weights(model.net_g_ema))


def test_a_full_disk_keeps_the_previous_checkpoint(build_model, restoration_options, monkeypatch):
    model = build_model(restoration_options)
    model.save(0, 1)
    files = [Path(model.opt['path'][key]) for key in ('models', 'training_states')]
    before = {path: path.read_bytes() for folder in files for path in folder.iterdir()}
    step(model, batch())

    def write_some(content, path):
        Path(path).write_bytes(b'half')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(torch, 'save', write_some)
    for save in (model.save_network, model.save_training_state):
        with pytest.raises(InputError, match=r'1\.(pth|state) could not be written .*No space.*the previous one is kept'):
            save(*((model.net_g, 'net_g', 1) if save == model.save_network else (0, 1)))
    assert {path: path.read_bytes() for folder in files for path in folder.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() != 0, reason='only root may mount a small disk')
def test_a_truly_full_disk(build_model, restoration_options, tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'none', str(disk)], capture_output=True).returncode:
        pytest.skip('mounting is not allowed here')
    try:
        restoration_options['network_g'] = unet(base_channels=16)
        model = build_model(restoration_options)
        model.opt['path']['models'] = str(disk)
        model.save_network(model.net_g, 'net_g', 1)
        with pytest.raises(InputError, match=r'net_g_2\.pth could not be written'):
            for i in range(9):
                model.save_network(model.net_g, 'net_g', 2)
                (disk / 'net_g_2.pth').rename(disk / f'filler_{i}')
        assert read_checkpoint(disk / 'net_g_1.pth').params.keys() == model.net_g.state_dict().keys()
        assert not [path for path in disk.iterdir() if path.name.startswith('.')]
    finally:
        subprocess.run(['umount', '-l', str(disk)], check=True)  # the failed write's traceback still holds a file


# ---------------------------------------------------------------- loading


def test_partial_loading_takes_what_fits_and_refuses_nothing_in_common(build_model, restoration_options, tmp_path):
    donor = build_model(restoration_options, seed=5)
    donor.save(0, 1)
    path = donor.opt['path']['models'] + '/net_g_1.pth'
    restoration_options['network_g'] = unet(num_res_blocks=2)
    restoration_options['path'].update(pretrain_network_g=path, strict_load_g=False)
    model = build_model(restoration_options)
    assert torch.equal(model.net_g.conv_in.weight, donor.net_g.conv_in.weight)
    restoration_options['path']['strict_load_g'] = True
    with pytest.raises(InputError, match='another network than RefineUNet'):
        build_model(restoration_options)
    torch.save({'other.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    restoration_options['path'].update(pretrain_network_g=str(tmp_path / 'other.pth'), strict_load_g=False)
    with pytest.raises(InputError, match='no parameter in common'):
        build_model(restoration_options)


@pytest.mark.parametrize('block, options, fragments', [
    ('optim_g', {'type': 'SGD', 'lr': -1.0}, ('optim_g', 'SGD')),
    ('optim_g', {'type': 'AdamW', 'lr': 0.1, 'betas': [0.9]}, ('optim_g', 'AdamW')),
    ('scheduler', {'type': 'MultiStepLR', 'milestones': [1], 'restarts': [0, 5]}, ('scheduler', )),
])
def test_arguments_that_pytorch_refuses(build_model, restoration_options, block, options, fragments):
    restoration_options['train'][block] = options
    with pytest.raises(InputError) as error:
        build_model(restoration_options)
    assert all(fragment in str(error.value) for fragment in fragments)


# ---------------------------------------------------------------- validation


def loader(options):
    from basicsr.data import build_dataset

    from stochastic_refine.data.checked_dataset import CheckedDataset
    name, dataset = next((name, dataset) for name, dataset in options['datasets'].items() if name != 'train')
    dataset = {'scale': 1, **dataset, 'phase': name.split('_')[0]}
    return DataLoader(CheckedDataset(build_dataset(dataset)))


def validate(model, options, current_iter=1):
    model.validation(loader(options), current_iter, None, options['val']['save_img'])
    return model.metric_results


def test_two_processes_score_exactly_as_one(build_model, refine_options, monkeypatch):
    """Each share of the images is validated alone, then gathered as two processes would."""
    from stochastic_refine.models import validation
    model = build_model(refine_options)
    alone = dict(validate(model, refine_options))
    parts = []
    monkeypatch.setattr(validation, '_gather', lambda scores, world_size: parts.append(scores) or {})
    for rank in (0, 1):
        model.opt.update(rank=rank, world_size=2)
        validate(model, refine_options)
    assert [sorted(part) for part in parts] == [[0, 2], [1, 3]]
    model.opt['rank'] = 0
    monkeypatch.setattr(validation, '_gather', lambda scores, world_size: {**parts[1], **parts[0]})
    assert validate(model, refine_options) == alone


def test_scores_are_the_metric_of_what_is_saved(build_model, restoration_options, pairs, tmp_path):
    import cv2
    options = for_test(restoration_options)
    options['val'].update(save_img=True, suffix='x')
    model = build_model(options)
    psnr = validate(model, options, 'tiny')['psnr']
    expected = []
    for path in sorted((pairs / 'gt').iterdir()):
        saved = cv2.imread(str(tmp_path / 'experiments/tiny/visualization/pairs' / f'{path.stem}_x.png'))
        error = saved.astype(np.float64) - cv2.imread(str(path))
        expected.append(10 * math.log10(255**2 / np.mean(error**2)))
    assert psnr == pytest.approx(np.mean(expected), abs=1e-9)


def test_grids_are_restored_window_by_window(build_model, restoration_options):
    restoration_options['val'].update(grids=True, crop_size=32)
    model = build_model(restoration_options)
    seen = []
    model.net_g.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    validate(model, restoration_options)
    assert seen == [(1, 3, 32, 32)] * (4 * 3 * 2)  # four images of 72x64


def test_validation_records_the_best_in_the_metrics_own_direction(build_model, restoration_options):
    restoration_options['val']['metrics']['worst'] = {**restoration_options['val']['metrics']['psnr'], 'better': 'lower'}
    model = build_model(restoration_options)
    first = dict(validate(model, restoration_options, 1))
    with torch.no_grad():
        model.net_g.conv_out.bias.add_(10)  # all white or worse
    second = dict(validate(model, restoration_options, 2))
    assert second['psnr'] < first['psnr']
    best = model.best_metric_results['pairs']
    assert (best['psnr']['iter'], best['worst']['iter']) == (1, 2)
    assert (best['psnr']['val'], best['worst']['val']) == (first['psnr'], second['worst'])


def test_a_validation_is_labelled_with_the_iteration_of_its_weights(build_model, restoration_options):
    """BasicSR's last one, after the training, has counted one further; a resumed run may have nothing left to train."""
    model = build_model(restoration_options)
    step(model, batch(), 2)
    validate(model, restoration_options, current_iter=3)
    assert model.best_metric_results['pairs']['psnr']['iter'] == 2
    resumed = build_model(restoration_options)
    resumed.resume_training(model.training_state(0, 5))
    validate(resumed, restoration_options, current_iter=6)
    assert resumed.best_metric_results['pairs']['psnr']['iter'] == 5


def test_without_ground_truth_images_are_saved_and_full_reference_metrics_left_out(build_model, restoration_options, pairs,
                                                                                   tmp_path):
    options = for_test(restoration_options)
    options['datasets'] = {'test': {'name': 'blurred', 'type': 'SingleImageDataset', 'dataroot_lq': str(pairs / 'lq'),
                                    'io_backend': {'type': 'disk'}}}
    options['val']['save_img'] = True
    model = build_model(options)
    assert validate(model, options, 'tiny') == {}
    saved = tmp_path / 'experiments/tiny/visualization/blurred'
    assert sorted(path.name for path in saved.iterdir()) == [f'{p.stem}_tiny.png' for p in sorted((pairs / 'lq').iterdir())]


def test_unloadable_options_are_refused_by_the_model_itself(build_model, restoration_options):
    for change, fragment in (
        ({'train': {**restoration_options['train'], 'pixel_opt': None}}, 'pixel_opt'),
        ({'train': {**restoration_options['train'], 'precision': 'float16'}}, 'train: precision'),
        ({'val': {**restoration_options['val'], 'precision': 'bf16'}}, 'val: precision'),
        ({'val': {**restoration_options['val'], 'tile': 'small'}}, 'val: tile'),
        ({'val': {**restoration_options['val'], 'grids': True, 'crop_size': 8}}, 'val: grids needs crop_size'),
        ({'network_g': unet(base_chanels=4)}, "did you mean base_channels"),
        ({'train': {**restoration_options['train'], 'accumulate': 2, 'pixel_opt': {'type': 'L1Loss', 'reduction': 'sum'}}},
         'reduction sum'),
    ):
        with pytest.raises(InputError, match=fragment):
            build_model({**restoration_options, **change})
