"""Fronts against brute force, picks, and a thinned front that stays monotone and spans it evenly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stochastic_refine.sweep.pareto import front, pick, ranked, thin

BETTER = ('lower', 'higher')
NAN = math.nan


def brute_force(pairs: list[tuple[float, float]], better: tuple[str, str]) -> set[int]:
    signs = [1 if word == 'higher' else -1 for word in better]
    signed = [tuple(sign * value for sign, value in zip(signs, pair)) for pair in pairs]

    def dominated(a, b) -> bool:
        return b[0] >= a[0] and b[1] >= a[1] and b != a

    known = [i for i, pair in enumerate(pairs) if not any(map(math.isnan, pair))]
    return {i for i in known if not any(dominated(signed[i], signed[j]) for j in known)}


@pytest.mark.parametrize('better', [('lower', 'higher'), ('higher', 'higher'), ('lower', 'lower')])
def test_front_is_what_nothing_dominates(better: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 5, 60):
        for levels in (4, 1000):  # few levels make ties in one score and in both
            pairs = [tuple(map(float, pair)) for pair in rng.integers(0, levels, (size, 2))]
            pairs[size // 2] = (NAN, 0.0) if size > 1 else pairs[0]
            found = front(pairs, better)
            assert set(found) == brute_force(pairs, better) and len(found) == len(set(found))
            second = [pairs[i][1] for i in found]
            assert second == sorted(second, reverse=better[1] == 'higher')


def test_picks_break_ties_by_the_other_score() -> None:
    pairs = [(0.3, 28.0), (0.1, 25.0), (0.1, 26.0), (NAN, 99.0), (0.2, 28.0)]
    assert pick(pairs, BETTER, axis=0) == 2 and pick(pairs, BETTER, axis=1) == 4
    assert pick([(NAN, 1.0)], BETTER, axis=0) is None and front([(NAN, 1.0)], BETTER) == []
    assert ranked([2.0, NAN, 1.0, 2.0], 'higher') == [0, 3, 2, 1] and ranked([2.0, NAN, 1.0, 2.0], 'lower') == [2, 0, 3, 1]


def test_thinned_front_is_monotone_and_even() -> None:
    # A straight front of 101 points crowded at one end, with dominated points and a repeated one beside it
    position = np.linspace(0, 1, 101)**3
    pairs = [(0.3 - 0.2 * p, 30 - 5 * p) for p in position] + [(0.5, 20.0), (0.3, 30.0), (0.25, 26.0)]
    order = np.random.default_rng(1).permutation(len(pairs))
    pairs = [pairs[i] for i in order]
    chosen = [pairs[i] for i in thin(pairs, BETTER, 5)]
    assert chosen[0] == (0.3, 30.0) and chosen[-1] == pytest.approx((0.1, 25.0))
    assert all(a[0] > b[0] and a[1] > b[1] for a, b in zip(chosen, chosen[1:]))
    np.testing.assert_allclose([pair[1] for pair in chosen], [30, 28.75, 27.5, 26.25, 25], atol=0.08)
    assert len(thin(pairs[:2], BETTER, 5)) <= 2


def test_thinned_front_leaves_out_what_noise_could_reorder() -> None:
    pairs = [(0.30, 30.0), (0.29, 29.9), (0.20, 27.5), (0.195, 27.4), (0.11, 25.1), (0.10, 25.0)]
    assert thin(pairs, BETTER, 9) == [0, 2, 5]  # both ends stay
    assert thin(pairs[:1], BETTER, 9) == [0] and thin([(0.2, 28.0), (0.1, 27.0)], BETTER, 2) == [0, 1]
