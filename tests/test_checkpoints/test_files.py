"""Checkpoint files: read without running what is in them, refused with one sentence, written whole or not at all."""

from __future__ import annotations

import collections
import errno
import io
import os
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from stochastic_refine.checkpoints import load_weights, read_checkpoint, save_safetensors
from stochastic_refine.errors import InputError, is_of_the_system
from stochastic_refine.files import write_atomically

METADATA = {'network_g': {'type': 'RefineUNet'}, 'operating_points': {'sharp': {'steps': 50}}}
WEIGHTS = {'conv.weight': torch.arange(6.0).reshape(2, 3), 'conv.bias': torch.tensor([0.5, -0.5], dtype=torch.float16)}


def saved(content: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def assert_same(params: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert params.keys() == expected.keys()
    for key, value in expected.items():
        assert params[key].dtype == value.dtype
        assert torch.equal(params[key], value)


def assert_nothing_beside(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_pth_round_trip_with_metadata(tmp_path):
    path = tmp_path / 'net.pth'
    write_atomically(path, lambda temporary: torch.save({'params': WEIGHTS, 'stochastic_refine': METADATA}, temporary))
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.params, WEIGHTS)
    assert checkpoint.metadata == METADATA
    assert_nothing_beside(path)


def test_safetensors_round_trip_with_metadata(tmp_path):
    path = tmp_path / 'net.safetensors'
    weights = {**WEIGHTS, 'transposed': WEIGHTS['conv.weight'].T}  # not contiguous
    save_safetensors(path, weights, METADATA)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.params, weights)
    assert checkpoint.metadata == METADATA
    assert_nothing_beside(path)


def test_the_averaged_weights_are_preferred_and_the_others_can_be_had(tmp_path):
    ema = {key: value + 1 for key, value in WEIGHTS.items()}
    torch.save({'params': WEIGHTS, 'params_ema': ema}, tmp_path / 'net.pth')
    assert_same(read_checkpoint(tmp_path / 'net.pth').params, ema)
    assert_same(read_checkpoint(tmp_path / 'net.pth', prefer='params').params, WEIGHTS)


@pytest.mark.parametrize('content', [
    WEIGHTS,
    {'state_dict': WEIGHTS, 'epoch': 3},
    {'params': {f'module.{key}': value for key, value in WEIGHTS.items()}},
], ids=['bare', 'state_dict', 'from DistributedDataParallel'])
def test_other_projects_files_are_read(tmp_path, content):
    torch.save(content, tmp_path / 'net.pth')
    checkpoint = read_checkpoint(tmp_path / 'net.pth')
    assert_same(checkpoint.params, WEIGHTS)
    assert checkpoint.metadata == {}


class RunsCode:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder), )


@pytest.mark.parametrize('is_zip', [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, is_zip):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    path.write_bytes(saved({'params': WEIGHTS, 'x': RunsCode(trace)}, _use_new_zipfile_serialization=is_zip))
    with pytest.raises(InputError, match=r'evil\.pth holds Python objects besides tensors'):
        read_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), 'the file would have run nothing, so the test shows nothing'


ZIP, LEGACY = saved({'params': WEIGHTS}), saved({'params': WEIGHTS}, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(('name', 'content', 'words'), [
    ('cut.pth', ZIP[:len(ZIP) // 2], 'damaged or cut short'),
    ('cut.pth', LEGACY[:-20], 'damaged or cut short'),
    ('empty.pth', b'', 'damaged or cut short'),
    ('text.pth', b'hello world', 'is not a checkpoint'),
    ('page.pth', b'<html>404</html>', 'is not a checkpoint'),
    ('photo.pth', b'\xff\xd8\xff\xe0\x00\x10JFIF', 'is not a checkpoint'),
    ('list.pth', saved([1, 2]), 'holds no weights'),
    ('numbers.pth', saved({'params': {'a': 1}}), 'holds no weights'),
    ('objects.pth', saved(collections.Counter(a=object)), 'holds Python objects'),
    ('text.safetensors', b'hello world', 'damaged or no safetensors file'),
    ('empty.safetensors', b'', 'damaged or no safetensors file'),
], ids=lambda value: value if isinstance(value, str) else 'bytes')
def test_unusable_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_cut_safetensors_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r'gone\.pth does not exist'):
        read_checkpoint(tmp_path / 'gone.pth')
    path = tmp_path / 'cut.safetensors'
    save_safetensors(path, WEIGHTS, METADATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r'cut\.safetensors is damaged'):
        read_checkpoint(path)


@pytest.mark.parametrize('original', [ZIP, LEGACY], ids=['zip', 'legacy'])
def test_whatever_the_damage_the_error_is_one_sentence(tmp_path, original):
    rng, path = random.Random(0), tmp_path / 'net.pth'
    for _ in range(60):
        damaged = bytearray(original[:rng.randrange(len(original))])
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            read_checkpoint(path)


def test_the_wrong_net_is_explained():
    net = nn.ModuleDict({'conv': nn.Linear(4, 2), 'extra': nn.Linear(1, 1)})
    before = net['conv'].bias.clone()
    with pytest.raises(InputError) as caught:
        load_weights(net, {**WEIGHTS, 'other': torch.zeros(1)}, 'network_g: net.pth')
    message = str(caught.value)
    assert message.startswith('network_g: net.pth holds weights of another network than ModuleDict')
    for words in ('2 missing (first: extra.bias)', '1 unexpected (first: other)',
                  '1 of another shape (first: conv.weight is (2, 3), not (2, 4))'):
        assert words in message
    assert torch.equal(net['conv'].bias, before)


def test_weights_that_fit_are_loaded_in_the_nets_dtype():
    net = nn.ModuleDict({'conv': nn.Linear(3, 2)})
    load_weights(net, WEIGHTS, 'net.pth')
    assert net['conv'].bias.dtype == torch.float32
    assert torch.equal(net['conv'].bias, WEIGHTS['conv.bias'].float())


@pytest.mark.parametrize(('error', 'expected', 'words'), [
    (OSError(errno.ENOSPC, 'No space left on device'), InputError, 'could not be written .*No space left.*one is kept'),
    (RuntimeError('PytorchStreamWriter failed writing file data/0'), InputError, 'previous one is kept'),
    (TypeError('cannot pickle'), TypeError, 'cannot pickle'),
    (KeyboardInterrupt(), KeyboardInterrupt, ''),
], ids=repr)
def test_a_writer_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path, error, expected, words):
    path = tmp_path / 'net.pth'
    path.write_bytes(b'the old one')

    def write(temporary: str) -> None:
        Path(temporary).write_bytes(b'half of the n')
        raise error

    with pytest.raises(expected, match=words):
        write_atomically(path, write)
    assert path.read_bytes() == b'the old one'
    assert_nothing_beside(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r'net\.pth could not be written'):
        save_safetensors(tmp_path / 'gone' / 'net.pth', WEIGHTS, {})


def test_the_longest_name_is_written_and_a_longer_one_is_not_the_folders_fault(tmp_path):
    for name in ('é' * 125 + '.jpg', 'a.' + 'b' * 253):
        write_atomically(tmp_path / name, lambda temporary: Path(temporary).write_bytes(b'x'))
        assert (tmp_path / name).read_bytes() == b'x'
    with pytest.raises(InputError, match='its name is too long') as caught:
        write_atomically(tmp_path / ('a' * 252 + '.jpg'), lambda temporary: Path(temporary).write_bytes(b'x'))
    assert not is_of_the_system(caught.value) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != 'posix', reason='POSIX permissions')
def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / 'usual').touch()
    write_atomically(tmp_path / 'ours', lambda temporary: Path(temporary).write_bytes(b'x'))
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'usual').stat().st_mode
