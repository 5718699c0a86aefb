"""Hostile and damaged checkpoints, given to ``stochastic-refine restore -w``."""

from __future__ import annotations

import io
import itertools
import json
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import damaged, leaves, replaced
from malformed_child import Case
from PIL import Image
from tiny import METADATA, tiny_params

from stochastic_refine.checkpoints import METADATA_KEY
from stochastic_refine.cli import main


def cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    numbers = itertools.count()
    photo, out, canary = folder / 'photo.png', folder / 'restored.png', folder / 'canary'
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(photo)

    def case(name: str, content: bytes, suffix: str, may_pass: bool = False) -> Case:
        path = folder / f'weights{next(numbers)}{suffix}'  # weights are kept from call to call

        def run() -> int:
            path.write_bytes(content)
            code = main(['restore', str(photo), '-o', str(out), '-w', str(path), '--device', 'cpu', '--overwrite'])
            path.unlink()
            assert not canary.exists(), 'code in a checkpoint was run'
            return code

        return Case(name, run, path.name, may_pass)

    params = tiny_params()
    good = {
        '.pth': torch_file({'params': params, METADATA_KEY: METADATA}),
        '.safetensors': safetensors(params, METADATA),
        '.legacy.pth': torch_file({'params': params, METADATA_KEY: METADATA}, zipped=False),
    }
    for suffix, content in good.items():
        assert case(suffix, content, suffix).run() == 0, suffix
    for suffix, content in good.items():
        for words, broken in damaged(content, rng, cuts=5, flips=(1, 1, 8, 64, 512)):
            yield case(f'{suffix}: {words}', broken, suffix, may_pass='cut' not in words)
    for name, content in {**pickles(canary, params), **archives(good['.pth']), **tensors(params)}.items():
        # PyTorch reads the 64-bit directory, whatever the 32-bit one says
        yield case(name, content, '.pth', may_pass=name.startswith('a directory'))
    for name, content in headers(good['.safetensors']).items():
        yield case(name, content, '.safetensors')
    for name, content in strangers().items():
        yield case(name, content, '.pth' if rng.random() < 0.5 else '.safetensors')
    for name, metadata, may_pass in wrong_metadata(rng):
        yield case(f'.safetensors: {name}', safetensors(params, metadata), '.safetensors', may_pass)
        yield case(f'.pth: {name}', torch_file({'params': params, METADATA_KEY: metadata}), '.pth', may_pass)


def torch_file(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def safetensors(params: dict[str, torch.Tensor], metadata: Any) -> bytes:
    from safetensors.torch import save
    return save(params, {METADATA_KEY: metadata if isinstance(metadata, str) else json.dumps(metadata)})


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def pickles(canary: Path, params: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Files whose pickles would write ``canary``."""
    import os
    import pickle
    import subprocess
    touch = f'touch {canary}'
    commands = {
        'os.system': Command(os.system, touch),
        'subprocess': Command(subprocess.getoutput, touch),
        'eval': Command(eval, f'open({str(canary)!r}, "w")'),
        'exec': Command(exec, f'open({str(canary)!r}, "w")'),
        'open': Command(open, str(canary), 'w'),
        'torch.load': Command(torch.load, str(canary)),
        'torch.save': Command(torch.save, {}, str(canary)),
        'Path.touch': Command(Path.touch, canary),
    }
    found = {}
    for name, command in commands.items():
        found[f'{name} among the weights'] = torch_file({'params': {**params, 'x': command}})
        found[f'{name} in the metadata'] = torch_file({'params': params, METADATA_KEY: {**METADATA, 'x': command}})
        found[f'{name} in a bare pickle'] = pickle.dumps({'params': command})
        found[f'{name} in an old file'] = torch_file({'params': {'x': command}}, zipped=False)
    found['by an old protocol'] = pickle.dumps(commands['os.system'], protocol=0)
    return found


def repacked(content: bytes, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A PyTorch archive with some records replaced or added, by the ends of their names."""
    source, buffer = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as target:
        for info in source.infolist():
            ending = next((key for key in change if info.filename.endswith(key)), None)
            target.writestr(info.filename, source.read(info) if ending is None else change[ending])
    return buffer.getvalue()


def archives(good: bytes) -> dict[str, bytes]:
    """Archives with bad records, and zip bombs."""
    pickled = next(zipfile.ZipFile(io.BytesIO(good)).read(name) for name in zipfile.ZipFile(io.BytesIO(good)).namelist()
                   if name.endswith('data.pkl'))
    end = good.rindex(b'PK\5\6')
    array = b'\x80\x02cbuiltins\nbytearray\nJ' + struct.pack('<i', 2**31 - 1) + b'\x85R.'
    return {
        'records packed': repacked(good, {}, zipfile.ZIP_DEFLATED),
        'a record of 3 GiB of zeros': _bomb(good, 3 * 2**30),
        'an empty record': repacked(good, {'data/0': b''}),
        'a record too long': repacked(good, {'data/0': bytes(10**6)}),
        'no pickle': repacked(good, {'data.pkl': b''}),
        'another pickle': repacked(good, {'data.pkl': b'\x80\x02}q\0.'}),
        'a pickle cut short': repacked(good, {'data.pkl': pickled[:len(pickled) // 2]}),
        'a pickle of 2 GiB of bytes': repacked(good, {'data.pkl': array}),
        'a text for a pickle': repacked(good, {'data.pkl': b'weights'}),
        'another byte order': repacked(good, {'byteorder': b'sideways'}),
        'no version': repacked(good, {'version': b'\xff\xff'}),
        'no directory': good[:end],
        'a directory of 65535 records': good[:end + 8] + b'\xff' * 4 + good[end + 12:],
        'a directory beyond the end': good[:end + 16] + b'\xff\xff\xff\x7f' + good[end + 20:],
        'no record at all': _empty_zip(),
    }


def _empty_zip() -> bytes:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, 'w').close()
    return buffer.getvalue()


def _bomb(good: bytes, size: int) -> bytes:
    """A PyTorch archive with one record that inflates to ``size`` bytes."""
    source, buffer = zipfile.ZipFile(io.BytesIO(good)), io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for info in source.infolist():
            with target.open(info.filename, 'w', force_zip64=True) as file:
                if info.filename.endswith('data/0'):
                    for _ in range(size // 2**24):
                        file.write(bytes(2**24))
                else:
                    file.write(source.read(info))
    return buffer.getvalue()


def tensors(params: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Weights that are none, or not those of the network."""
    name, first = next(iter(params.items()))

    def content(value: Any = first, key: Any = name, metadata: Any = METADATA) -> bytes:
        return torch_file({'params': {**{k: v for k, v in params.items() if k != name}, key: value}, METADATA_KEY: metadata})

    wide = {**METADATA, 'network': replaced(METADATA['network'], ('predictor', 'base_channels'), 2048)}
    from stochastic_refine.archs.build import plan_arch
    one = torch.zeros(1)
    views = {key: one.expand(value.shape) for key, value in plan_arch(wide['network']).state_dict().items()}
    return {
        'NaN weights': content(first * float('nan')),
        'infinite weights': content(first + float('inf')),
        'weights of whole numbers': content(first.to(torch.int64)),
        'weights of complex numbers': content(first.to(torch.complex64)),
        'sparse weights': content(first.to_sparse()),
        'weights on no device': content(first.to('meta')),
        'quantised weights': content(torch.quantize_per_tensor(first, 0.1, 0, torch.qint8)),
        'a tensor of another shape': content(first[:1]),
        'a tensor without entries': content(first[:0]),
        'a tensor too many': content(key='another'),
        'a name that is a number': content(key=5),
        'a list for a tensor': content([1, 2]),
        'a list for the weights': torch_file({'params': [first]}),
        'no weights': torch_file({'params': {}, METADATA_KEY: METADATA}),
        'a bare tensor': torch_file(first),
        'a number': torch_file(5),
        'one number that pretends to be a gigabyte of weights': torch_file({'params': views, METADATA_KEY: wide}),
        'metadata that are a list': content(metadata=[1]),
        'metadata that are a tensor': content(metadata=first),
        'metadata that are text': content(metadata='x'),
    }


def headers(good: bytes) -> dict[str, bytes]:
    """safetensors with hostile headers."""
    length = struct.unpack('<Q', good[:8])[0]
    header, data = json.loads(good[8:8 + length]), good[8 + length:]
    name = next(key for key in header if key != '__metadata__')

    def changed(raw: bytes | None = None, **entry: Any) -> bytes:
        content = raw if raw is not None else json.dumps({**header, name: {**header[name], **entry}}).encode()
        return struct.pack('<Q', len(content)) + content + data

    start, end = header[name]['data_offsets']
    deep = json.dumps({**header, '__metadata__': {METADATA_KEY: '[' * 100_000}}).encode()
    return {
        'header length 2^60': struct.pack('<Q', 2**60) + good[8:],
        'header length 2^64-1': b'\xff' * 8 + good[8:],
        'header length 0': bytes(8) + good[8:],
        'header length of the whole file': struct.pack('<Q', len(good)) + good[8:],
        'header that is no JSON': changed(b'x' * 100),
        'header that is a list': changed(b'[1, 2]'),
        'header that is not UTF-8': changed(b'{"\xff": 1}'),
        'header of a hundred thousand brackets': changed(b'[' * 100_000),
        'metadata of a hundred thousand brackets': changed(deep),
        'offsets that overlap': changed(data_offsets=[start, end + 4]),
        'offsets beyond the end': changed(data_offsets=[len(data), len(data) + end - start]),
        'offsets backwards': changed(data_offsets=[end, start]),
        'offsets below zero': changed(data_offsets=[-4, 0]),
        'offsets of 2^62': changed(data_offsets=[2**62, 2**62 + 4]),
        'a shape of 2^40 a side': changed(shape=[2**40, 2**40]),
        'a shape that is text': changed(shape='large'),
        'an unknown type': changed(dtype='F1024'),
        'no offsets': changed(data_offsets=None),
        'more data than said': good + bytes(100),
    }


def strangers() -> dict[str, bytes]:
    return {
        'an empty file': b'',
        'a web page': b'<!DOCTYPE html><html>404</html>' * 10,
        'a PNG': b'\x89PNG\r\n\x1a\n' + bytes(200),
        'a pointer of git-lfs': b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15062240\n',
        'zeros': bytes(10_000),
    }


def wrong_metadata(rng: random.Random) -> Iterator[tuple[str, Any, bool]]:
    """(words, metadata, whether they can be harmless)."""
    wrong = [None, 'text', 5, -1, 0.5, 10**9, 10**30, True, [], [1, 2], {}, {'type': 'os.system'}]
    for path, leaf in leaves(METADATA):
        for value in rng.sample([value for value in wrong if value != leaf or type(value) is not type(leaf)], 1):
            # Another seed, another number of steps or none at all, and what only training reads
            harmless = 'operating_points' in path or value in (None, [])
            yield f'{".".join(map(str, path))} = {str(value)[:20]}', replaced(METADATA, path, value), harmless
    network = METADATA['network']
    for words, value in {
            'no network': None, 'a list for a network': [1], 'an unknown type': {'type': 'Unknown'},
            'a type that is a list': {'type': ['RefineUNet']}, 'no type': {'base_channels': 4},
            'base_channels 1e9': replaced(network, ('predictor', 'base_channels'), 10**9),
            'num_res_blocks 1e9': replaced(network, ('predictor', 'num_res_blocks'), 10**9),
            'a million levels': replaced(network, ('predictor', 'channel_mults'), [1] * 10**6),
            'a network in a network in a network': {**network, 'predictor': network},
            'a hundred networks': _nested(network, 100),
            'weights from elsewhere': {**network, 'predictor': {**network['predictor'], 'pretrained': '/etc/passwd'}},
            'sampling of 1e9 steps': {**network, 'sampling': {'steps': 10**9}},
            'sampling that is a list': {**network, 'sampling': [1]},
    }.items():
        yield words, {**METADATA, 'network': value}, words in ('weights from elsewhere', 'no network')  # it is recognised
    for words, value in {'a list of points': [1], 'points that are numbers': {'a': 1}, 'an unknown key': {'a': {'stepz': 5}},
                         'steps 1e9': {'a': {'steps': 10**9}}, 'no variance': {'a': {'final_variance': float('nan')}}}.items():
        yield words, {**METADATA, 'operating_points': value}, False
    for words, value in {'a path that is text': 'x', 'a path of numbers': [1], '1e6 steps': [{'steps': 10**6}]}.items():
        yield words, {**METADATA, 'tradeoff': value}, False


def _nested(network: dict[str, Any], depth: int) -> dict[str, Any]:
    for _ in range(depth):
        network = {**network, 'predictor': network}
    return network
