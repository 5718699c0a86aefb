"""Which weights a photographer gets who names none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stochastic_refine.inference import choice
from stochastic_refine.inference.choice import Choice, choose, duration
from stochastic_refine.inference.deblurrer import Deblurrer

SECONDS = {'camera': 2.0, 'small': 9.0, 'maxim-gopro': 80.0, 'camera+refine': 3.0, 'nafnet-gopro': 300.0}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


@pytest.fixture
def machine(monkeypatch):
    """A machine that has some weights, whose times are known: ``machine(NAMES)(SPEED)`` is the choice there."""

    def having(*names: str) -> Callable[[str], Choice]:
        loaded = {}

        def load(name: str) -> Deblurrer:
            deblurrer = Deblurrer(Plain(), device='cpu')
            loaded[id(deblurrer)] = (name, deblurrer)
            return deblurrer

        monkeypatch.setattr(choice, 'available_weights', lambda: dict.fromkeys(names))
        monkeypatch.setattr(choice, 'expected_seconds', lambda deblurrer, size: SECONDS[loaded[id(deblurrer)][0]])
        return lambda speed: choose(speed, (720, 1280), load)

    return having


def test_the_best_that_is_here_and_quick_enough(machine):
    pick = machine('small', 'camera')
    assert pick('auto').name == pick('best').name == pick('fast').name == 'camera'
    assert pick('auto').better[0] == 'maxim-gopro'  # the only one whose address was tried
    assert 'stochastic-refine weights get maxim-gopro' in pick('auto').words('one sample')
    pick = machine('small', 'maxim-gopro', 'mine')
    assert pick('auto').name == pick('best').name == 'maxim-gopro' and pick('fast').name == 'camera'
    words = pick('auto').words('one pass')
    assert words.startswith('maxim-gopro (published: GoPro 32.86') and 'about 80 s for 1280x720 pixels' in words
    assert 'get' not in words and 'Better' not in pick('fast').words('')
    pick = machine('small', 'camera', 'camera+refine')
    assert pick('auto').name == 'camera' and pick('best').name == 'camera+refine'
    assert machine('maxim-gopro', 'camera', 'camera+refine')('best').name == 'maxim-gopro'
    pick = machine('small', 'nafnet-gopro')  # the best score of them all, and slow here
    assert pick('auto').name == 'camera' and pick('best').name == 'nafnet-gopro'
    assert 'With --best: nafnet-gopro, about 5 min.' in pick('auto').words('')


def test_seconds_grow_with_the_photo():
    deblurrer = Deblurrer(Plain(), device='cpu')
    assert 0 < choice.expected_seconds(deblurrer, (10, 10)) < 5
    small, large = (choice.expected_seconds(deblurrer, size) for size in ((192, 192), (19200, 19200)))
    assert large > 100 * small


@pytest.mark.parametrize('seconds, words', [(0.2, 'a second'), (42.4, '42 s'), (130, '2 min'), (7200, '2.0 h')])
def test_durations(seconds, words):
    assert duration(seconds) == words
