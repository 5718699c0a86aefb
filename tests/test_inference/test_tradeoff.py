"""The knob: its ends, what lies between two points, and what it refuses."""

from __future__ import annotations

import math

import pytest

from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.tradeoff import point_at, tradeoff_path

PATH = [
    OperatingPoint(steps=10, final_variance=0.4, num_samples=8, average=True, clamp=True),
    OperatingPoint(steps=40, final_variance=0.1, num_samples=1, clamp=True),
    OperatingPoint('ddim', steps=100, final_variance=0.02, eta=0.5, clamp=True),
]


def test_points_of_the_path_are_met_exactly() -> None:
    assert [point_at(PATH, knob) for knob in (0, 0.5, 1)] == PATH and point_at(PATH, 1.0) == PATH[-1]
    assert point_at(PATH[:1], 0.7) == PATH[0]


def test_between_points_numbers_go_geometrically() -> None:
    middle = point_at(PATH, 0.25)
    assert (middle.steps, middle.num_samples, middle.average, middle.clamp) == (20, 3, True, True)
    assert middle.final_variance == pytest.approx(0.2)
    nearly = point_at(PATH, 0.49)
    assert nearly.num_samples == 1 and not nearly.average and 38 <= nearly.steps <= 40
    for low, high in zip(range(50), range(1, 51)):
        a, b = point_at(PATH, low / 100), point_at(PATH, high / 100)
        assert a.steps <= b.steps and a.final_variance >= b.final_variance and a.num_samples >= b.num_samples


def test_points_of_other_kinds_are_not_mixed() -> None:
    assert point_at(PATH, 0.74) == PATH[1] and point_at(PATH, 0.76) == PATH[2]
    distilled = [OperatingPoint('ddim', steps=steps, grid_steps=8) for steps in (2, 4)]  # 3 does not divide 8
    assert point_at(distilled, 0.4) == distilled[0] and point_at(distilled, 0.6) == distilled[1]


@pytest.mark.parametrize('knob', [-0.1, 1.01, math.nan, True, '0.5'])
def test_knob_out_of_range(knob) -> None:
    with pytest.raises(InputError, match='0 .most faithful'):
        point_at(PATH, knob)


def test_paths_in_checkpoints_are_checked() -> None:
    assert tradeoff_path({'tradeoff': [point.as_options() for point in PATH]}, 'x') == PATH
    assert tradeoff_path({}, 'x') == []
    with pytest.raises(InputError, match='x: tradeoff'):
        tradeoff_path({'tradeoff': {'steps': 3}}, 'x')
    with pytest.raises(InputError, match='x: tradeoff 0.*steps'):
        tradeoff_path({'tradeoff': [{'stesp': 3}]}, 'x')
    with pytest.raises(InputError, match='sweep'):
        point_at([], 0.5)
