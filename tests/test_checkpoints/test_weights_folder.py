"""Where weights lie, and what a name or a path stands for."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from stochastic_refine.checkpoints.weights_folder import (
    BUNDLED,
    WEIGHTS_VARIABLE,
    available_weights,
    check_name,
    find_weights,
    user_folder,
)
from stochastic_refine.errors import InputError


def test_the_systems_folder_or_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(platformdirs, 'user_data_path', lambda name, appauthor: tmp_path / name)
    assert user_folder() == tmp_path / 'stochastic_refine' / 'weights'
    assert available_weights()['small'].parent == BUNDLED  # there is no such folder yet
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / 'mine'))
    (tmp_path / 'mine' / 'downloads').mkdir(parents=True)
    for name in ('small.safetensors', 'net.v2.pth', '.half.safetensors', 'hashes.json', 'downloads/x.pth'):
        (tmp_path / 'mine' / name).touch()
    known = available_weights()
    assert {name for name, path in known.items() if path.parent == user_folder()} == {'small', 'net.v2'}
    assert find_weights('net.v2') == tmp_path / 'mine' / 'net.v2.pth'


def test_what_is_not_there_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    for name, words in (('maxim-gopro', 'stochastic-refine weights get maxim-gopro'),
                        ('maxim-gorpo', 'did you mean maxim-gopro'), (tmp_path / 'x.pth', 'check the path')):
        with pytest.raises(InputError, match=words):
            find_weights(name)
    (tmp_path / 'graph').mkdir()
    (tmp_path / 'graph' / 'model.json').touch()
    assert find_weights(tmp_path / 'graph') == tmp_path / 'graph'


@pytest.mark.parametrize('name', ['', '.x', '../x', 'a/b', 'a b', 'é', 'x' * 101, '-o'])
def test_names_that_are_no_files(name: str) -> None:
    with pytest.raises(InputError, match='is no name for weights'):
        check_name(name)
