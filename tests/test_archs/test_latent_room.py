"""The room ``latent`` from below: any module can be imported first, and the packages that it needs are asked for late."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stochastic_refine.archs import ARCHS, build_arch
from stochastic_refine.errors import InputError


def test_any_module_comes_first_and_the_extra_comes_late() -> None:
    code = ('import sys, stochastic_refine.inference.restorer; from stochastic_refine.archs import ARCHS; '
            'assert "DeblurDiff" in ARCHS; assert not {"diffusers", "transformers", "basicsr"} & sys.modules.keys()')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    assert {'ControlNet', 'DeblurDiff'} <= ARCHS.keys()
    with pytest.raises(InputError, match=r"need the package diffusers.*pip install 'stochastic_refine\[latent\]'"):
        build_arch({'type': 'DeblurDiff'})
