"""AdversarialRestorationModel: the two losses, whose gradients reach whom, parts of a batch, saving and resuming."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from conftest import unet
from test_restoration_model import batch, step, weights
from torch import nn

from stochastic_refine.checkpoints import read_checkpoint
from stochastic_refine.errors import InputError


@pytest.fixture
def options(parsed, restoration_options, monkeypatch):
    """A training against a discriminator of two scales without any normalisation."""
    from basicsr.utils.registry import ARCH_REGISTRY

    class TwoScales(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, width, 4, 2), nn.LeakyReLU(0.2))
            self.fine, self.coarse = nn.Conv2d(width, 1, 3), nn.Conv2d(width, 1, 5, 2)

        def forward(self, x):
            features = self.first(x)
            return [self.fine(features), self.coarse(features)]

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'TwoScales', TwoScales)
    restoration_options.update(model_type='AdversarialRestorationModel', network_d={'type': 'TwoScales'})
    restoration_options['train'].update(
        optim_d={'type': 'SGD', 'lr': 0.1},
        pixel_opt={'type': 'MSELoss', 'loss_weight': 0.5, 'reduction': 'mean'},
        gan_opt={'type': 'GANLoss', 'gan_type': 'lsgan', 'real_label_val': 1.0, 'fake_label_val': -1.0, 'loss_weight': 0.1})
    return restoration_options


# ---------------------------------------------------------------- losses


def test_relativistic_loss_is_the_closed_form(parsed):
    from basicsr.losses.gan_loss import GANLoss

    from stochastic_refine.models.adversarial_restoration_model import relativistic_loss
    criterion = GANLoss('lsgan', 1.0, -1.0, loss_weight=10.0)
    scores = torch.tensor([1.0, 3.0])
    # minus the other side's mean of -1 they are 2 and 4, and should be 1, or -1
    assert float(relativistic_loss(criterion, [scores], [-1.0], True, is_disc=True)) == (1 + 9) / 4
    assert float(relativistic_loss(criterion, [scores], [-1.0], False, is_disc=True)) == (9 + 25) / 4
    assert float(relativistic_loss(criterion, [scores], [-1.0], False, is_disc=False)) == 10 * (9 + 25) / 4
    # a second scale that sees no difference: its loss is 1/2
    assert float(relativistic_loss(criterion, [scores, torch.zeros(3)], [-1.0, 0.0], True, is_disc=True)) == (2.5 + 0.5) / 2
    logistic = relativistic_loss(GANLoss('vanilla'), [scores], [-1.0], True, is_disc=True)
    assert float(logistic) == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-4))) / 4)


def test_mean_scores_are_of_the_last_batches_before(parsed):
    from stochastic_refine.models.adversarial_restoration_model import ScoreMeans
    means = ScoreMeans(2)
    assert means.of('real', 3) == [0, 0, 0]
    for value in (100.0, 1.0, 4.0):
        means.add('real', [value, -value])
    assert means.of('real', 2) == [2.5, -2.5] and means.of('fake', 1) == [0]


def test_one_step_moves_both_by_their_own_losses_alone(build_model, options):
    model = build_model(options)
    model.score_means.add('real', [0.3, -0.2])
    model.score_means.add('fake', [-0.1, 0.4])
    g, d = weights(model.net_g), weights(model.net_d)
    data = batch()
    # the losses by hand, before the step
    fake = model.net_g(data['lq'])
    gan = sum(((f - mean - 1)**2).mean() for f, mean in zip(model.net_d(fake), (0.3, -0.2))) / 4
    content = 0.5 * (fake - data['gt']).square().mean()
    g_gradient = torch.cat([x.flatten() for x in torch.autograd.grad(content + 0.1 * gan, list(model.net_g.parameters()))])
    reals, fakes = model.net_d(data['gt']), model.net_d(fake.detach())
    real = sum(((r - mean - 1)**2).mean() for r, mean in zip(reals, (-0.1, 0.4))) / 4
    false = sum(((f - mean + 1)**2).mean() for f, mean in zip(fakes, (0.3, -0.2))) / 4
    d_gradient = torch.cat([x.flatten() for x in torch.autograd.grad(real + false, list(model.net_d.parameters()))])
    step(model, data)
    torch.testing.assert_close(weights(model.net_g) - g, -0.1 * g_gradient, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(weights(model.net_d) - d, -0.1 * d_gradient, rtol=1e-3, atol=1e-6)
    assert min(g_gradient.norm(), d_gradient.norm()) > 0.01
    means = [sum(scale.mean().item() for scale in scores) / 2 for scores in (reals, fakes)]
    assert model.log_dict == pytest.approx({
        'l_g_pix': content.item(), 'l_g_gan': 0.1 * gan.item(), 'l_d_real': real.item(), 'l_d_fake': false.item(),
        'out_d_real': means[0], 'out_d_fake': means[1]}, rel=1e-4)
    # this batch's scores join those that the next one is compared with
    assert model.score_means.of('fake', 2) == pytest.approx([(-0.1 + fakes[0].mean().item()) / 2,
                                                             (0.4 + fakes[1].mean().item()) / 2])


def test_the_generators_losses_leave_the_discriminator_alone(build_model, options):
    model = build_model(options)
    seen = []
    backward = model.backward_by_parts

    def spy(net, *args):
        result = backward(net, *args)
        seen.append((net is model.net_g, all(p.grad is None for p in model.net_d.parameters())))
        return result

    model.backward_by_parts = spy
    step(model, batch())
    step(model, batch(), 2)  # what the discriminator's own step left is gone
    assert seen == [(True, True), (False, False)] * 2


@pytest.mark.parametrize('size, parts', [(4, 2), (3, 2), (2, 4)])
def test_accumulated_parts_give_the_updates_of_the_whole(build_model, options, size, parts):
    results = []
    for accumulate in (1, parts):
        options['train']['accumulate'] = accumulate
        model = build_model(options)
        calls = []
        model.net_g.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(len(args[0])))
        before = torch.cat([weights(model.net_g), weights(model.net_d)])
        step(model, batch(size))
        step(model, batch(size, seed=1), 2)  # compared with the scores of the first
        results.append((torch.cat([weights(model.net_g), weights(model.net_d)]) - before, model.log_dict))
        assert max(calls) == math.ceil(size / accumulate)
    (update, log), (update_parts, log_parts) = results
    torch.testing.assert_close(update_parts, update, rtol=0, atol=1e-6)
    assert log_parts == pytest.approx(log, rel=1e-5)


def test_only_the_generators_gradient_is_clipped(build_model, options):
    options['train']['grad_clip'] = 1e-3
    model = build_model(options)
    g, d = weights(model.net_g), weights(model.net_d)
    step(model, batch())
    assert (weights(model.net_g) - g).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert (weights(model.net_d) - d).norm() > 0.01


def test_the_generator_may_wait_and_learn_less_often(build_model, options):
    options['train'].update(net_d_iters=2, net_d_init_iters=2, accumulate=2)
    model = build_model(options)
    moved = []
    for i in range(1, 7):
        g, d = weights(model.net_g), weights(model.net_d)
        step(model, batch(seed=i), i)
        assert not torch.equal(weights(model.net_d), d)
        moved.append(not torch.equal(weights(model.net_g), g))
        assert ('l_g_gan' in model.log_dict) == moved[-1]
    assert moved == [False, False, False, True, False, True]


def test_bfloat16_and_progressive_patches(build_model, options):
    options['train']['precision'] = 'bfloat16'
    options['datasets']['train'].update(gt_sizes=[16, 32], mini_batch_sizes=[2, 1], iters=[1, 1])
    model = build_model(options)
    seen = []
    model.net_d.fine.register_forward_hook(lambda module, args, output: seen.append((output.dtype, len(output))))
    for i in (1, 2):
        step(model, batch(2, side=32), i)
    assert seen == [(torch.bfloat16, 2)] * 3 + [(torch.bfloat16, 1)] * 3
    assert {p.dtype for net in (model.net_g, model.net_d) for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize('spoilt', ['net_g', 'net_d'])
def test_not_a_number_in_either_network_stops_before_both_updates(build_model, options, spoilt):
    model = build_model(options)
    with torch.no_grad():
        list(getattr(model, spoilt).parameters())[-1][0] = math.nan
    other = model.net_d if spoilt == 'net_g' else model.net_g
    before = weights(other)
    with pytest.raises(InputError, match='iteration 1, before the update.*nan'):
        step(model, batch())
    assert torch.equal(weights(other), before)
    with pytest.raises(InputError, match='weights that are not finite'):
        model.save(0, 1)
    assert not list(Path(model.opt['path']['training_states']).iterdir())


# ---------------------------------------------------------------- saving, resuming, options


def test_resuming_restores_both_networks_and_optimizers(build_model, options):
    adam = {'type': 'Adam', 'lr': 0.01}
    options['train'].update(ema_decay=0.5, optim_g=adam, optim_d=adam)
    model = build_model(options)
    for i in (1, 2):
        model.update_learning_rate(i)
        step(model, batch(seed=i), i)
    model.save(0, 2)
    models, states = (Path(model.opt['path'][key]) for key in ('models', 'training_states'))
    assert read_checkpoint(models / 'net_d_2.pth').metadata['network'] == {'type': 'TwoScales'}
    assert read_checkpoint(models / 'net_g_2.pth').metadata['network'] == unet()

    for name in 'gd':  # as BasicSR does when it resumes
        options['path'][f'pretrain_network_{name}'] = str(models / f'net_{name}_2.pth')
    resumed = build_model(options, seed=1)
    resumed.resume_training(torch.load(states / '2.state', weights_only=True))
    resumed.score_means = copy.deepcopy(model.score_means)  # not saved
    for trained in (model, resumed):
        trained.update_learning_rate(3)
        step(trained, batch(seed=3), 3)
    for net in ('net_g', 'net_d', 'net_g_ema'):
        assert torch.equal(weights(getattr(resumed, net)), weights(getattr(model, net))), net
    assert resumed.optimizer_d.param_groups[0]['lr'] == model.optimizer_d.param_groups[0]['lr'] != 0.01


@pytest.mark.parametrize('block, key, value, fragments', [
    (None, 'network_d', None, ('network_d', 'DoubleScaleDiscriminator')),
    (None, 'network_d', {'type': 'TwoScale'}, ('TwoScale', )),
    (None, 'network_d', {'type': 'TwoScales', 'widht': 3}, ('network_d', 'did you mean width')),
    ('train', 'optim_d', None, ('needs optim_d', )),
    ('train', 'optim_d', {'type': 'Addam', 'lr': 0.1}, ('optim_d', 'did you mean Adam')),
    ('train', 'gan_opt', None, ('gan_opt', 'lsgan')),
    ('train', 'gan_opt', {'type': 'GANLoss', 'gan_type': 'wgan'}, ('gan_opt', 'lsgan')),
    ('train', 'pixel_opt', None, ('needs a loss', 'pixel_opt')),
])
@pytest.mark.parametrize('checked_first', [True, False])
def test_what_lacks_or_is_misspelt(build_model, parsed, options, block, key, value, fragments, checked_first):
    from stochastic_refine.settings.check import check_options
    (options[block] if block else options)[key] = value
    if value is None and not block:
        del options[key]
    with pytest.raises(InputError) as error:
        check_options(parsed(options)) if checked_first else build_model(options)
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)
