"""Networks from option dicts: what is wrong in the options is named, with the nearest right word."""

from __future__ import annotations

import pytest
from torch import nn

from stochastic_refine.archs import RefineUNet, arch_class, build, build_arch
from stochastic_refine.errors import InputError

TINY = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}


def test_builds_what_the_options_say_and_leaves_them_alone():
    options = dict(TINY)
    net = build_arch(options)
    assert type(net) is RefineUNet
    assert (net.conv_in.out_channels, net.levels, net.num_res_blocks) == (4, 2, 1)
    assert options == TINY


@pytest.mark.parametrize(('options', 'words'), [
    ({**TINY, 'type': 'RefineUnet'}, ["'RefineUnet'", 'did you mean', 'RefineUNet']),
    ({**TINY, 'base_chanels': 8}, ['predictor', 'RefineUNet', "'base_chanels'", 'did you mean base_channels']),
    ({**TINY, 'zzz': 8}, ["'zzz'", 'known: ', 'num_res_blocks']),
    ({'base_channels': 4}, ['predictor', "'type'"]),
    ('RefineUNet', ['predictor', "'type'"]),
    ({**TINY, 'num_res_blocks': 'two'}, ['predictor', 'RefineUNet', "'two'"]),
    ({**TINY, 'base_channels': 5, 'noise_conditioned': True}, ['predictor', 'even', '5']),
    ({'type': 'PredictRefineNet', 'predictor': None}, ['PredictRefineNet', 'denoiser']),
], ids=str)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InputError) as caught:
        build_arch(options, 'predictor')
    assert not [word for word in words if word not in str(caught.value)], caught.value


def test_an_error_inside_a_nested_network_names_its_part():
    with pytest.raises(InputError, match=r"^network: denoiser: RefineUNet has no option 'noise_conditionned'; "
                                         'did you mean noise_cond'):
        build_arch({'type': 'PredictRefineNet', 'predictor': TINY, 'denoiser': {**TINY, 'noise_conditionned': True}})


def test_other_registries_are_asked_for_what_is_not_ours(monkeypatch):

    class Elsewhere(nn.Module):

        def __init__(self, width: int = 1) -> None:
            super().__init__()

    monkeypatch.setattr(build, 'fallback_lookup', {'Elsewhere': Elsewhere}.get)
    monkeypatch.setattr(build, 'fallback_names', lambda: ['Elsewhere'])
    assert arch_class('Elsewhere') is Elsewhere
    assert arch_class('RefineUNet') is RefineUNet
    with pytest.raises(InputError, match='did you mean Elsewhere'):
        arch_class('Elswhere')
    with pytest.raises(InputError, match="no option 'widht'; did you mean width"):
        build_arch({'type': 'Elsewhere', 'widht': 2})


def test_networks_that_take_any_argument_are_not_second_guessed(monkeypatch):

    class Anything(nn.Module):

        def __init__(self, **options) -> None:
            super().__init__()
            self.options = options

    monkeypatch.setitem(build.ARCHS, 'Anything', Anything)
    assert build_arch({'type': 'Anything', 'whatever': 3}).options == {'whatever': 3}
