"""Flow refinement against closed forms: paths, orders of convergence, Gaussians whose restorations are known."""

from __future__ import annotations

import pytest
import torch

from stochastic_refine.diffusion import (
    FLOW_SAMPLERS,
    FlowPath,
    FlowSchedule,
    flow_euler,
    flow_heun,
    recompose,
    refine,
    residual,
)


def no_noise() -> torch.Tensor:
    raise AssertionError('a flow draws no noise on its way')


def gaussian(sigma: float, variance: float, seen: list | None = None):
    """E[r | z_t] of r ~ N(0, variance) and z_0 ~ N(0, sigma^2), both independent: the ideal network."""

    def predict(z_t: torch.Tensor, t: float) -> torch.Tensor:
        if seen is not None:
            seen.append(t)
        return t * variance / ((1 - t)**2 * sigma**2 + t**2 * variance) * z_t

    return predict


def test_path_goes_from_noise_to_residual_at_its_velocity():
    path = FlowPath(0.03, 4.0)
    z_0, r = path.start(torch.randn(2, 3, 4, 4).double()), torch.randn(2, 3, 4, 4).double()
    assert torch.equal(path.state(z_0, r, 0.0), z_0) and torch.equal(path.state(z_0, r, 1.0), r)
    for t in (0.0, 0.3, 0.9):
        torch.testing.assert_close(path.velocity(path.state(z_0, r, t), r, t), r - z_0)
    t = torch.tensor([0.0, 0.5, 0.9])
    torch.testing.assert_close(path.weight(t), torch.tensor([1.0, 4.0, 25.0]))  # held at 1 / 0.2^2


def test_start_noise_is_in_units_of_images():
    noise = torch.randn(1, 3, 8, 8).double()
    initial = torch.rand(1, 3, 8, 8).double()
    z_0 = FlowPath(0.05, 8.0).start(noise)
    torch.testing.assert_close(recompose(z_0, initial, 8.0), initial + 0.05 * noise)


def test_training_draws_cover_the_path():
    r = torch.full((4000, 1, 1, 1), 2.0).double()
    z_t, t = FlowPath(0.1, 0.5).draw(r, torch.Generator().manual_seed(0))
    rest = z_t.flatten() - 2 * t
    assert t.min() >= 0 and t.max() < 1 and abs(t.mean() - 0.5) < 0.02 and abs(t.var() - 1 / 12) < 0.005
    scaled = rest / (1 - t)
    assert abs(scaled.mean()) < 0.01 and abs(scaled.std() - 0.1) < 0.005  # s = 2 * 0.5 * 0.1


def test_training_for_some_calls_draws_their_times_alone():
    _, t = FlowPath(calls=4).draw(torch.zeros(4000, 1, 1, 1), torch.Generator().manual_seed(0))
    times, counts = t.unique(return_counts=True)
    assert tuple(times.tolist()) == FlowSchedule.even(4).times and counts.min() > 900


@pytest.mark.parametrize('sampler', FLOW_SAMPLERS)
@pytest.mark.parametrize('steps', [1, 2, 5])
def test_a_perfect_network_restores_exactly_and_is_asked_at_the_times(sampler, steps):
    gt, initial = torch.rand(2, 2, 3, 4, 4).double()
    r, asked = residual(gt, initial, 8.0), []

    def perfect(z: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return r

    noise = [torch.randn(2, 3, 4, 4).double()]
    schedule = FlowSchedule.even(steps)
    restored = refine(perfect, initial, schedule, noise.pop, sampler, residual_scale=8.0, flow=FlowPath(0.02, 8.0))
    torch.testing.assert_close(restored, gt)
    twice = sorted([*schedule.levels, *schedule.levels[1:]])  # as the end of a step, and as the start of the next
    assert asked == (schedule.levels if sampler == 'flow_euler' else twice)


def test_one_step_is_the_prediction_at_the_start():
    z_0 = torch.randn(1, 3, 4, 4)
    assert torch.equal(flow_euler(lambda z, t: 3 * z + t, z_0, FlowSchedule.even(1), no_noise), 3 * z_0)


def test_constrained_predictions_end_in_the_range():
    out = flow_euler(lambda z, t: z + 9, torch.zeros(1, 1, 2, 2), FlowSchedule.even(3), no_noise, lambda r: r.clamp(-1, 1))
    assert torch.equal(out, torch.ones(1, 1, 2, 2))


def exact_map(sigma: float, variance: float) -> float:
    """z_1 / z_0 of the probability flow between two Gaussians."""
    return variance**0.5 / sigma


@pytest.mark.parametrize('sampler, order', [(flow_euler, 1), (flow_heun, 2)])
def test_order_of_convergence(sampler, order):
    """Up to a fixed time before the end the error falls as h^order."""
    sigma, variance, last = 0.5, 0.2, 0.75
    predict = gaussian(sigma, variance)
    marginal = ((1 - last)**2 * sigma**2 + last**2 * variance)**0.5
    exact = predict(torch.tensor(marginal / sigma).double(), last)  # the prediction from the exact state at the last time
    errors = [abs(sampler(predict, torch.ones((), dtype=torch.float64), FlowSchedule.even(steps, last), no_noise) - exact)
              for steps in (17, 33, 65)]
    for coarse, fine in zip(errors, errors[1:]):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_posterior_samples_of_a_gaussian():
    """x ~ N(0, 1), y = x + N(0, 0.25): MMSE 0.2, a posterior sample's error twice that, its variance that of x."""
    generator = torch.Generator().manual_seed(0)
    x, error, n = (torch.randn(400_000, generator=generator, dtype=torch.float64) for _ in range(3))
    mean = 0.8 * (x + 0.5 * error)
    assert (mean - x).square().mean() == pytest.approx(0.2, rel=0.01)
    z = flow_euler(gaussian(0.1, 0.2), 0.1 * n, FlowSchedule.even(100), no_noise)
    sample = mean + z
    assert (sample - x).square().mean() == pytest.approx(0.391, abs=0.006)
    assert sample.var() == pytest.approx(0.991, abs=0.008)


def test_without_condition_the_flow_is_optimal_transport():
    """PMRF: the state is put on the posterior mean, the network sees nothing else; error near 0.211, variance that of x."""
    generator = torch.Generator().manual_seed(1)
    x, error, n = (torch.randn(400_000, generator=generator, dtype=torch.float64) for _ in range(3))
    mean, s = 0.8 * (x + 0.5 * error), 0.1

    def predict(state: torch.Tensor, t: float) -> torch.Tensor:
        """E[x | state] of state = (1 - t)(mean + s n) + t x; cov(mean, x) = var(mean) = 0.8."""
        variance = (1 - t)**2 * (0.8 + s**2) + t**2 + 2 * t * (1 - t) * 0.8
        return ((1 - t) * 0.8 + t) / variance * state

    sample = flow_euler(predict, mean + s * n, FlowSchedule.even(25), no_noise)
    assert (sample - x).square().mean() == pytest.approx(0.22, abs=0.008)


@pytest.mark.parametrize('times', [(), (0.1, 0.5), (0.0, 0.5, 0.5), (0.0, 1.0)])
def test_times_that_cannot_be_are_refused(times):
    with pytest.raises(ValueError, match='must rise from 0'):
        FlowSchedule(times)
    assert FlowSchedule.even(3).times == pytest.approx((0, 1 / 3, 2 / 3))
    assert FlowSchedule.even(3, 0.5).times == pytest.approx((0, 0.25, 0.5))
