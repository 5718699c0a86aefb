"""Sharded checkpoints: whole or not there, equal to what was saved, refused with one sentence."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import can_shard

from stochastic_refine.checkpoints import read_checkpoint, write_metadata
from stochastic_refine.checkpoints.sharded import INDEX, is_sharded, read_sharded, save_sharded
from stochastic_refine.errors import InputError

CONTENT = {
    'params': {'a.weight': torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last), 'a.bias': torch.arange(4).bfloat16()},
    'params_ema': {'a.weight': torch.rand(4, 3, 2, 2), 'a.bias': torch.zeros(4).bfloat16()},
    'stochastic_refine': {'network': {'type': 'X', 'mults': [1, 2]}, 'iteration': 5},
    'optimizers': [{'state': {0: {'step': torch.tensor(3.0), 'n': torch.tensor([True])}}, 'groups': [{'betas': (0.9, 0.99)}]}],
    'milestones': Counter([2, 2, 5]),
}


BIAS = {'__tensor__': 'params/a.bias', 'channels_last': False}


pytestmark = pytest.mark.skipif(not can_shard(), reason='PyTorch before 2.8 writes no shards')


@pytest.fixture
def folder(tmp_path):
    save_sharded(tmp_path / 'net.pth', CONTENT)
    return tmp_path / 'net.pth'


def test_round_trip(folder):
    def check(a, b):
        assert type(a) is type(b)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
        elif isinstance(a, dict):
            assert list(a) == list(b)
            [check(a[key], b[key]) for key in a]
        elif isinstance(a, (list, tuple)):
            [check(x, y) for x, y in zip(a, b, strict=True)]
        else:
            assert a == b

    check(CONTENT, read_sharded(folder))
    save_sharded(folder, {'params': {'w': torch.ones(2)}})  # takes the old one's place
    assert is_sharded(folder) and list(read_sharded(folder)) == ['params']
    assert [path.name for path in folder.parent.iterdir()] == ['net.pth']


def test_it_is_read_as_any_checkpoint(folder):
    checkpoint = read_checkpoint(folder)
    assert checkpoint.metadata == CONTENT['stochastic_refine']
    assert torch.equal(checkpoint.params['a.weight'], CONTENT['params_ema']['a.weight'])
    assert torch.equal(read_checkpoint(folder, 'params').params['a.weight'], CONTENT['params']['a.weight'])
    with pytest.raises(InputError, match='is a sharded checkpoint, in which nothing can be stored'):
        write_metadata(folder, folder, 'x', 1)


@pytest.mark.parametrize('damage, sentence', [
    (lambda shard, index: shard.unlink(), 'lacks its part shard-00001'),
    (lambda shard, index: shard.write_bytes(shard.read_bytes()[:-20]), 'its part shard-00001.* is damaged or cut short'),
    (lambda shard, index: shard.write_bytes(b'\xff' * 40), 'its part shard-00001.* is damaged or cut short'),
    (lambda shard, index: index.write_bytes(index.read_bytes()[:-50]), 'index.pth is damaged or cut short'),
    (lambda shard, index: index.unlink(), 'is a folder without index.pth'),
    (lambda shard, index: torch.save({'shards': [], 'content': torch.load(index)['content']}, index), 'does not fit'),
    (lambda shard, index: torch.save({'x': Exception()}, index), 'holds Python objects'),
    (lambda shard, index: torch.save({'shards': [shard.name], 'content': 2 * [BIAS]}, index), 'does not fit'),
    (lambda shard, index: torch.save([], index), 'does not fit'),
], ids=['missing', 'cut', 'garbage', 'index cut', 'no index', 'shard not listed', 'code', 'a tensor twice', 'no dict'])
def test_damage_is_told_in_one_sentence(folder, damage, sentence):
    damage(next(folder.glob('*.safetensors')), folder / INDEX)
    with pytest.raises(InputError, match=sentence) as error:
        read_checkpoint(folder)
    assert str(folder) in str(error.value) and '\n' not in str(error.value)


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='could not be written .*choose another folder') as error:
        save_sharded(tmp_path / 'file' / 'net.pth', CONTENT)
    assert '\n' not in str(error.value)

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(InputError, match='No space left'):
        save_sharded(tmp_path / 'net.pth', CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ['file']
