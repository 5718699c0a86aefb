"""Calibration against closed forms: samples and truth drawn from known Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stochastic_refine.errors import InputError
from stochastic_refine.studies.association import Association
from stochastic_refine.studies.calibration import LEVELS, Calibration, half_width

SHAPE = (3, 128, 128)


def drawn(samples: int, sigma: np.ndarray | float, seed: int = 0, truth_sigma: np.ndarray | float | None = None):
    """Mean and std of samples, and a truth, all from N(0.5, sigma) far from black and white."""
    rng = np.random.default_rng(seed)
    values = 0.5 + sigma * rng.standard_normal((samples, *SHAPE))
    truth = 0.5 + (sigma if truth_sigma is None else truth_sigma) * rng.standard_normal(SHAPE)
    return values.mean(0), values.std(0, ddof=1), truth


@pytest.mark.parametrize('samples', [2, 8])
def test_coverage_is_nominal_if_the_truth_is_one_more_sample(samples):
    calibration = Calibration(samples)
    calibration.add(*drawn(samples, 0.02))
    report = calibration.report()
    for level, share in report.coverage.items():
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / np.prod(SHAPE)))
    assert report.scale == pytest.approx(1, abs=0.01)
    assert report.predicted == pytest.approx(0.02 * math.sqrt(1 + 1 / samples), rel=0.01)


def test_a_std_of_half_the_size_covers_what_students_t_says():
    samples = 5
    mean, std, truth = drawn(samples, 0.02)
    calibration = Calibration(samples)
    calibration.add(mean, std / 2, truth)
    report = calibration.report()
    for level in LEVELS:
        quantile = stats.t.ppf((1 + level) / 2, samples - 1)
        expected = 2 * stats.t.cdf(quantile / 2, samples - 1) - 1
        assert report.coverage[level] == pytest.approx(expected, abs=0.01)
    assert report.scale == pytest.approx(2, rel=0.02)


def test_reliability_bins_follow_a_std_that_is_known():
    sigma = np.broadcast_to(np.geomspace(0.001, 0.05, SHAPE[2]), SHAPE)  # rises along a row
    calibration = Calibration(64)
    calibration.add(*drawn(64, sigma))
    report = calibration.report(bins=6)
    assert sum(each.count for each in report.reliability) == report.values == np.prod(SHAPE)
    assert all(each.count == pytest.approx(report.values / 6, rel=0.05) for each in report.reliability)
    assert [each.std for each in report.reliability] == sorted(each.std for each in report.reliability)
    for each in report.reliability:
        assert each.rmse == pytest.approx(each.predicted, rel=0.04)
    assert report.calibration_error < 0.04
    assert report.sharpness == pytest.approx(sigma.mean(), rel=0.01)


def test_correlations_are_scipys():
    rng = np.random.default_rng(1)
    x = rng.gamma(1, 0.02, 20_000)
    y = np.abs(x * rng.standard_normal(20_000))
    pair = Association()
    for part in np.array_split(np.arange(20_000), 3):
        pair.add(x[part], y[part])
    assert pair.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert pair.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-3)  # ranks of fine bins
    constant = Association()
    constant.add(np.full(9, 0.1), rng.random(9))
    assert math.isnan(constant.spearman)


def test_ranks_of_tied_values_are_shared():
    x, y = np.array([0.1, 0.1, 0.3, 0.5, 0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.3, 0.1, 0.9, 0.9, 0.9])
    pair = Association()
    pair.add(x, y)
    assert pair.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_images_merged_from_their_states_equal_one_pass_and_blocks_correlate_more():
    sigma = np.kron(np.random.default_rng(2).uniform(0.005, 0.05, (3, 16, 16)), np.ones((8, 8)))
    together, merged = Calibration(4), Calibration(4)
    for seed in range(3):
        image = drawn(4, sigma, seed)
        together.add(*image)
        alone = Calibration(4)
        alone.add(*image)
        merged.merge(alone.state())
    assert merged.report() == together.report()
    assert together.report().block_spearman > 0.8 > together.report().spearman > 0.2


def test_widths_are_those_of_the_intervals_within_range():
    mean, std = np.array([[[0.01, 0.5]]]), np.full((1, 1, 2), 0.05)
    half = 0.05 * math.sqrt(1.5)  # t with one degree of freedom has its quartile at 1
    calibration = Calibration(2, levels=(0.5, ))
    calibration.add(mean, std, mean)
    report = calibration.report()
    assert report.width[0.5] == pytest.approx(((0.01 + half) + 2 * half) / 2)
    assert report.coverage[0.5] == 1 and math.isnan(report.block_spearman)  # two pixels make no block


def test_too_few_samples_or_images_are_told():
    with pytest.raises(InputError, match='two samples'):
        half_width(1, 0.9)
    with pytest.raises(InputError, match='between 0 and 1'):
        half_width(4, 1.0)
    with pytest.raises(InputError, match='no image'):
        Calibration(4).report()
