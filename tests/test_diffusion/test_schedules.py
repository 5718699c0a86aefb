"""Noise schedules and the continuous-level draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from stochastic_refine.diffusion import NoiseSchedule, draw_alpha_bar


def test_linear_tables_are_float64_with_linear_betas_and_the_given_ends():
    schedule = NoiseSchedule.linear(100, 1e-6, 0.02)
    assert {table.dtype for table in (schedule.betas, schedule.alphas, schedule.alpha_bars)} == {torch.float64}
    assert schedule.steps == 100
    np.testing.assert_allclose(schedule.betas, [1e-6 + (0.02 - 1e-6) * i / 99 for i in range(100)], rtol=1e-13)
    product = 1.0
    for beta, alpha_bar in zip(schedule.betas.tolist(), schedule.alpha_bars.tolist()):
        product *= 1 - beta
        assert alpha_bar == pytest.approx(product, rel=1e-14)


def test_defaults_are_those_of_the_paper():
    assert NoiseSchedule.linear(500).betas[[0, -1]].tolist() == pytest.approx([1e-6, 0.02], rel=1e-14)
    training = NoiseSchedule.training()
    assert training.steps == 2000
    assert training.betas[[0, -1]].tolist() == pytest.approx([1e-6, 0.01], rel=1e-14)


def test_short_weak_schedule_leaves_most_of_the_signal():
    assert NoiseSchedule.linear(10, 1e-6, 0.01).alpha_bars[-1].item() == pytest.approx(0.951, abs=5e-4)


def test_single_step_takes_the_final_variance():
    schedule = NoiseSchedule.linear(1, 1e-6, 0.3)
    assert schedule.steps == 1
    assert schedule.betas.tolist() == [0.3]
    assert schedule.alpha_bars.tolist() == [0.7]


def test_float32_betas_are_promoted_before_the_product():
    betas = torch.full((2000, ), 1e-3)
    expected = math.exp(2000 * math.log1p(-betas.double()[0].item()))
    assert NoiseSchedule(betas).alpha_bars[-1].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('betas', [[], [[0.1]], [0.0, 0.1], [1.0, 0.1], [0.1, 1.1], [-0.1], [math.nan]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match='beta'):
        NoiseSchedule(torch.tensor(betas))


@pytest.mark.parametrize('steps', [0, -3])
def test_schedule_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match='at least one step'):
        NoiseSchedule.linear(steps)


def test_draw_is_uniform_over_t_and_within_each_interval():
    schedule = NoiseSchedule.linear(20, 1e-4, 0.2)
    draws = draw_alpha_bar(schedule, 40_000, torch.Generator().manual_seed(0)).numpy()
    edges = np.concatenate([schedule.alpha_bars.flip(0).numpy(), [1.0]])  # rising: alpha_bar_T, ..., alpha_bar_1, 1
    assert draws.dtype == np.float64
    assert draws.min() >= edges[0]
    assert draws.max() <= 1
    assert np.unique(draws).size > 0.99 * draws.size, 'levels must be continuous, not entries of the table'
    interval = np.searchsorted(edges, draws, side='right') - 1
    counts = np.bincount(interval, minlength=20)
    assert counts.size == 20
    assert stats.chisquare(counts).pvalue > 1e-3
    position = (draws - edges[interval]) / (edges[interval + 1] - edges[interval])
    assert stats.kstest(position, 'uniform').pvalue > 1e-3
    # t and the position within its interval are independent
    assert abs(np.corrcoef(interval, position)[0, 1]) < 4 / math.sqrt(draws.size)


def test_draw_follows_its_generator():
    schedule = NoiseSchedule.training()
    first, again, other = (draw_alpha_bar(schedule, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_visits_levels_of_the_schedule_itself():
    schedule = NoiseSchedule.linear(12, 1e-6, 0.3)
    for stride in (1, 3, 4, 12):
        levels = schedule.alpha_bars[stride - 1::stride]
        torch.testing.assert_close(schedule.every(stride).alpha_bars, levels, rtol=1e-14, atol=0)
    for stride in (5, 0, 24):
        with pytest.raises(ValueError, match=f'12 steps.*{stride}'):
            schedule.every(stride)


def test_a_schedule_without_signal_is_the_published_one():
    from stochastic_refine.diffusion import forward_marginal, r0_from_v, v_target
    whole = NoiseSchedule.scaled_linear(1000, 0.00085, 0.012)
    changed = whole.without_signal()
    assert changed.alpha_bars[-1] == 0
    torch.testing.assert_close(changed.alpha_bars[:1], whole.alpha_bars[:1])
    old, new = whole.alpha_bars.sqrt(), changed.alpha_bars.sqrt()
    torch.testing.assert_close(new.diff() / old.diff(), torch.full_like(new[1:], old[0] / (old[0] - old[-1])))
    r0, eps = torch.randn(2, 4, 3, 8, 8)
    for alpha_bar in changed.alpha_bars[[0, 500, 999]].tolist():
        state, v = forward_marginal(r0, eps, alpha_bar), v_target(r0, eps, alpha_bar)
        torch.testing.assert_close(r0_from_v(state, v, alpha_bar), r0)


def test_spaced_steps_are_levels_of_the_whole_schedule():
    whole = NoiseSchedule.scaled_linear(1000, 0.00085, 0.012)
    assert whole.betas[0].item() == pytest.approx(0.00085) and whole.betas[-1].item() == pytest.approx(0.012)
    assert whole.betas.sqrt().diff().std() < 1e-12
    spaced, steps = whole.spaced(50)
    assert steps[:3] == [0, 20, 41] and steps[-1] == 999
    torch.testing.assert_close(spaced.alpha_bars, whole.alpha_bars[steps])
    assert whole.spaced(1)[1] == [999] and whole.spaced(1000)[1] == list(range(1000))
    with pytest.raises(ValueError, match='1001 cannot be taken'):
        whole.spaced(1001)
