"""Pairing by name and kind: what would compare the wrong images ends with a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from stochastic_refine.comparison.pairs import check_same_kind, match_names
from stochastic_refine.comparison.protocols import pairs_of_test_set, protocol_named
from stochastic_refine.comparison.restoring import result_folders
from stochastic_refine.comparison.systems import Network
from stochastic_refine.errors import InputError


@pytest.fixture
def folder(tmp_path: Path):
    """A function that makes a folder of black images, (width, height, mode) by file name."""

    def make(name: str, files: dict[str, tuple[int, int, str]] | list[str]) -> Path:
        files = files if isinstance(files, dict) else dict.fromkeys(files, (8, 6, 'RGB'))
        for file, (width, height, mode) in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (width, height)).save(path)
        return tmp_path / name

    return make


def test_pairs_are_found_by_name_in_subfolders_and_whatever_the_suffix(folder) -> None:
    gt = folder('gt', ['scene1/000.png', 'scene1/001.png', 'scene2/000.png'])
    lq = folder('lq', ['scene2/000.jpg', 'scene1/001.jpg', 'scene1/000.jpg'])
    pairs = pairs_of_test_set(protocol_named('folder'), gt, lq)
    assert [pair.name for pair in pairs] == ['scene1/000', 'scene1/001', 'scene2/000']
    assert all(pair.lq.with_suffix('').relative_to(lq) == pair.gt.with_suffix('').relative_to(gt) for pair in pairs)


def test_one_ending_on_every_name_is_passed_over(folder) -> None:
    restored = folder('restored', ['a_1_NAFNet.png', 'a_NAFNet.png'])
    assert match_names(['a', 'a_1'], restored) == {'a': restored / 'a_NAFNet.png', 'a_1': restored / 'a_1_NAFNet.png'}


@pytest.mark.parametrize('names, named', [
    (['a.png', 'b.png'], ['nothing there for c']),
    (['a.png', 'b.png', 'c.png', 'd.png'], ['no ground truth for d']),
    (['a_x.png', 'b_y.png', 'c_x.png'], ['nothing there for a, b, c', 'a_x']),
    (['a.png', 'b.png', 'c.png', 'c.jpg'], ['same name']),
])
def test_what_does_not_pair_up_is_listed(folder, names: list[str], named: list[str]) -> None:
    with pytest.raises(InputError) as error:
        match_names(['a', 'b', 'c'], folder('restored', names))
    assert all(part in str(error.value) for part in named)


def test_protocol_checks_the_number_of_pairs(folder) -> None:
    with pytest.raises(InputError, match='holds 1 images but the protocol gopro has 1111'):
        pairs_of_test_set(protocol_named('gopro'), folder('gt', ['a.png']))
    with pytest.raises(InputError, match='realblur_j'):
        protocol_named('realblur')
    assert protocol_named('realblur_r').aligned and not protocol_named('hide').aligned


@pytest.mark.parametrize('kind, named', [
    ((9, 6, 'RGB'), '9x6 pixels'), ((8, 6, 'L'), 'grey'), ((8, 6, 'RGBA'), 'transparency'),
])
def test_another_size_or_other_channels_are_refused(folder, kind: tuple[int, int, str], named: str) -> None:
    restored, gt = folder('restored', {'a.png': kind}), folder('gt', ['a.png'])
    with pytest.raises(InputError, match=named) as error:
        check_same_kind(restored / 'a.png', gt / 'a.png')
    assert 'a.png' in str(error.value)


def test_sizes_are_those_of_upright_images(folder) -> None:
    """A JPEG that EXIF turns has the size of what it shows, like its upright restoration."""
    restored, gt = folder('restored', {'a.jpg': (6, 8, 'RGB')}), folder('gt', ['a.png'])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new('RGB', (8, 6)).save(gt / 'a.jpg', exif=exif)
    check_same_kind(restored / 'a.jpg', gt / 'a.jpg')
    with pytest.raises(InputError, match='6x8 pixels but its ground truth .* 8x6'):
        check_same_kind(restored / 'a.jpg', gt / 'a.png')


@pytest.mark.parametrize('name', ['..', '.', '../x', 'a/b', 'a b', '.hidden', 'x' * 8 + '\n'])
def test_names_of_systems_are_folders_of_their_own_inside(name: str, tmp_path: Path) -> None:
    network = Network(name, tmp_path, tmp_path / 'w.pth', {})
    folder, = result_folders(network, tmp_path / 'restored', 1)[name]
    assert folder.resolve().parent == (tmp_path / 'restored').resolve() and folder.name.isprintable()
    others = [result_folders(dataclasses.replace(network, name=other), tmp_path / 'restored', 1)[other][0]
              for other in ('a_b', '.._x', 'x', '_', 'hidden')]
    assert folder not in others


def test_empty_missing_and_damaged(folder, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    for name, words in (('empty', 'holds no image'), ('nowhere', 'does not exist')):
        with pytest.raises(InputError, match=words):
            pairs_of_test_set(protocol_named('folder'), tmp_path / name)
    gt = folder('gt', ['a.png'])
    (tmp_path / 'damaged.png').write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises(InputError, match='damaged.png is damaged or no image'):
        check_same_kind(tmp_path / 'damaged.png', gt / 'a.png')
