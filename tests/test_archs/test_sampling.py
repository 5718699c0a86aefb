"""What operating points mean something to a network that samples, and what is refused before it is built."""

from __future__ import annotations

import pytest

from stochastic_refine.archs.sampling import Rules, rules_of
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import OperatingPoint, operating_points_of


def test_rules_are_told_by_options_alone() -> None:
    assert rules_of({'type': 'NAFNet'}) is None
    diffusion, flow = (rules_of({'type': 'PredictRefineNet', 'refiner': refiner}) for refiner in ('diffusion', 'flow'))
    assert operating_points_of({}, diffusion) == {'sample': OperatingPoint()}
    assert operating_points_of({}, flow) == {'sample': OperatingPoint(sampler='flow_euler', steps=2)}
    with pytest.raises(InputError, match='a: the refiner is a flow.*ddim cannot draw.*flow_euler or flow_heun'):
        flow.check(OperatingPoint(sampler='ddim'), 'a')


@pytest.mark.parametrize('options, fragment', [
    ({'steps': 9}, 'steps must be 8'),
    ({'sampler': 'ancestral'}, 'a sampler of its own.*ancestral cannot draw; choose native'),
    ({'guidance_scale': 2.0}, 'guidance_scale means nothing to a network that is told no text'),
    ({'final_variance': 0.1}, 'final_variance means nothing to the sampler native'),
    ({'clamp': False}, 'clamp means nothing to the sampler native'),
    ({'guidance_scale': -1}, 'guidance_scale must be a number from 0'),
    ({'prompt': 'a cat'}, 'prompt means nothing to a network that is told no text'),
    ({'start': 'noise'}, "start 'noise' means nothing to this network; it has one start alone"),
    ({'prompt': 3}, 'prompt must be text'),
    ({'sampler': 'ddim', 'guidance_scale': 2}, 'guidance_scale means nothing to the sampler ddim'),
])
def test_what_means_nothing_is_refused(options: dict, fragment: str) -> None:
    rules = Rules.native(8)
    with pytest.raises(InputError, match=fragment):
        rules.check(OperatingPoint.from_options({**rules.default, **options}), 'val')


def test_native_points_come_back_from_their_options() -> None:
    point = OperatingPoint(sampler='native', steps=8, num_samples=3, seed=4)
    assert point.calls == 8 and point.leftover_signal is None and point.variance is None
    assert point.as_options().keys() == {'sampler', 'steps', 'num_samples', 'average', 'seed'}
    assert OperatingPoint.from_options(point.as_options()) == point


def test_guidance_takes_two_calls_a_step_and_two_texts() -> None:
    rules = Rules('it diffuses', ('native', ), guided=True, starts=('noise', 'low'))
    point = OperatingPoint(sampler='native', steps=8, guidance_scale=3.0, prompt='sharp', start='low')
    rules.check(point, 'val')
    assert point.calls == 16 and OperatingPoint.from_options(point.as_options()) == point
    assert OperatingPoint(sampler='native', steps=8, guidance_scale=1.0).calls == 8
    for changes, words in (({'negative_prompt': 'sharp'}, 'give a prompt'), ({'start': 'high'}, 'choose noise or low')):
        with pytest.raises(InputError, match=words):
            rules.check(point.changed(**changes), 'val')
