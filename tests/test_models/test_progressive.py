"""Progressive patches: which stage, and the same random cut of both images."""

from __future__ import annotations

import pytest
import torch

from stochastic_refine.errors import InputError

DATASET = {'gt_size': 32, 'batch_size_per_gpu': 4, 'gt_sizes': [8, 16, 32], 'mini_batch_sizes': [4, 2, 1], 'iters': [3, 2, 2]}


@pytest.fixture
def patches(parsed):
    from stochastic_refine.models.progressive import ProgressivePatches
    return ProgressivePatches


def numbered(size=4, side=32):
    """Images whose every pixel has a value of its own."""
    return torch.arange(size * 3 * side * side, dtype=torch.float32).reshape(size, 3, side, side)


def test_stages(patches):
    stages = patches.from_options(DATASET)
    assert [stages.stage(i) for i in range(1, 10)] == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert patches.from_options({'gt_size': 32, 'batch_size_per_gpu': 4}) is None


def test_both_images_are_cut_alike_at_every_place_and_from_every_image(patches):
    stages, x = patches.from_options(DATASET), numbered()
    torch.manual_seed(0)
    corners, images = set(), set()
    for _ in range(1500):
        lq, gt = stages.cut([x, x + 0.5], 4)
        assert lq.shape == (2, 3, 16, 16) and torch.equal(gt, lq + 0.5)
        first = [int(v) for v in lq[:, 0, 0, 0]]
        images.add(tuple(v // (3 * 32 * 32) for v in first))
        top, left = divmod(first[0] % (32 * 32), 32)
        assert torch.equal(lq[0], x[images_index(first[0]), :, top:top + 16, left:left + 16])
        corners.add((top, left))
    assert len(corners) > 280 and max(corners) == (16, 16) and min(corners) == (0, 0)  # of 17 x 17
    assert images == {(i, j) for i in range(4) for j in range(4) if i != j}
    lq, _ = stages.cut([x, x], 1)
    assert lq.shape == (4, 3, 8, 8)
    lq, _ = stages.cut([x, x], 99)
    assert lq.shape == (1, 3, 32, 32)


def images_index(value):
    return value // (3 * 32 * 32)


def test_draws_repeat_with_the_random_state(patches):
    stages, x = patches.from_options(DATASET), numbered()
    state = torch.random.get_rng_state()
    first = stages.cut([x, x], 4)[0]
    torch.random.set_rng_state(state)
    assert torch.equal(stages.cut([x, x], 4)[0], first)


def test_the_model_trains_on_the_stage(build_model, restoration_options):
    restoration_options['datasets']['train'].update(gt_size=32, gt_sizes=[16, 32], mini_batch_sizes=[2, 1], iters=[2, 1])
    model = build_model(restoration_options)
    seen = []
    model.net_g.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    for i in (1, 2, 3, 4):
        model.feed_data({'lq': torch.rand(2, 3, 32, 32), 'gt': torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(i)
    assert seen == [(2, 3, 16, 16)] * 2 + [(1, 3, 32, 32)] * 2


@pytest.mark.parametrize('change, fragments', [
    ({'iters': None}, ("needs the key 'iters'", )),
    ({'gt_sizes': [8, 16]}, ('2 gt_sizes', '3 mini_batch_sizes')),
    ({'gt_sizes': [8, 16, 48]}, ('gt_sizes has 48', 'gt_size 32')),
    ({'mini_batch_sizes': [8, 2, 1]}, ('mini_batch_sizes has 8', 'batch_size_per_gpu 4')),
    ({'iters': [3, 2, 1.5]}, ('iters', 'whole numbers')),
    ({'mini_batch_sizes': [4, 0, 1]}, ('mini_batch_sizes', 'from 1')),
    ({'gt_sizes': 8}, ('gt_sizes', 'list')),
])
def test_wrong_stages_are_refused(patches, change, fragments):
    with pytest.raises(InputError) as error:
        patches.from_options({**DATASET, **change})
    assert all(fragment in str(error.value) for fragment in ('datasets: train', *fragments)), str(error.value)
