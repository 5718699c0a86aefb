"""Published weights of MAXIM: names, layouts, the authors' archive, the TensorFlow.js folder, and what is wrong with either."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stochastic_refine.archs import MAXIM
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.maxim_weights import convert, options_of, published_name, read_npz, read_tfjs
from stochastic_refine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ABSENT = [f'stage_1_output_conv_{level}/{kind}' for level in (1, 2) for kind in ('kernel', 'bias')]


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    layout = json.loads((ROOT / 'tests/data/parity' / network / 'layout.json').read_text())
    return {name: tuple(shape) for name, (shape, _) in layout['tensors'].items()}


@pytest.fixture(scope='module')
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes_of('MAXIM-small').items()}


def test_options_file_names_the_published_network() -> None:
    shapes = shapes_of('MAXIM')
    network = yaml.safe_load((ROOT / 'options/baselines/test_maxim.yml').read_text())['network_g']
    options = options_of(shapes, 'the layout')
    assert options.items() >= network.items()
    own = plan_arch(network).state_dict()
    assert sorted(map(published_name, own)) == sorted(shapes)
    assert sum(value.numel() for value in own.values()) == 22_212_795


def test_last_coarse_outputs_may_be_missing(arrays: dict[str, np.ndarray]) -> None:
    given = {name: value for name, value in arrays.items() if name not in ABSENT}
    converted = convert(given, 'the file')
    assert sorted(converted.zeroed) == sorted(
        f'stages.1.outputs.{level}.{kind}' for level in (1, 2) for kind in ('weight', 'bias'))
    assert not any(converted.params[name].any() for name in converted.zeroed)
    with torch.device('meta'):
        net = MAXIM(**{key: value for key, value in converted.options.items() if key != 'type'})
    net.load_state_dict(converted.params, assign=True)


@pytest.mark.parametrize('change, named', [
    (lambda arrays: arrays.pop('stage_1_output_conv_0/kernel'), 'lacks 1 .*stage_1_output_conv_0/kernel'),
    (lambda arrays: arrays.pop('UpSampleRatio_35/Conv_0/bias'), 'lacks 1 .*UpSampleRatio_35/Conv_0/bias'),
    (lambda arrays: arrays.update(extra=np.zeros(2, np.float32)), 'left over 1 .*extra'),
    (lambda arrays: arrays.update({'stage_0_input_conv_1/kernel': np.zeros((3, 3, 3, 17), np.float32)}), 'input_conv_1'),
    (lambda arrays: arrays.update({'stage_0_input_conv_1/kernel': np.zeros(3, np.float32)}), 'stage_0_input_conv_1'),
    (lambda arrays: arrays.update({'stage_0_input_conv_1/bias': np.zeros(16, np.int32)}), 'stage_0_input_conv_1/bias is int32'),
    (lambda arrays: arrays.clear(), 'no MAXIM'),
])
def test_what_is_no_maxim_is_told(arrays: dict[str, np.ndarray], change, named: str) -> None:
    changed = dict(arrays)
    change(changed)
    with pytest.raises(InputError, match=f'the file.*{named}'):
        convert(changed, 'the file')


def test_archive_is_read_without_the_optimiser_and_without_objects(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    file = tmp_path / 'checkpoint.npz'
    some = dict(list(arrays.items())[:3])
    np.savez(file, **{f'opt/target/{name}': value for name, value in some.items()}, **{'opt/state/step': np.array(1)})
    read = read_npz(file)
    assert read.keys() == some.keys() and all(np.array_equal(read[name], some[name]) for name in some)
    np.savez(file, **{'opt/target/x': np.array([print], dtype=object)})
    with pytest.raises(InputError, match='objects'):
        read_npz(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match='damaged'):
        read_npz(file)


def write_tfjs(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A graph as jax2tf and the TensorFlow.js converter make it: dense kernels by number, constants among the weights."""
    leaves = {'bias': 'Reshape', 'scale': 'Reshape_2', 'kernel': 'transpose_3'}
    weights, content = [], b''
    for number, name in enumerate(sorted(arrays)):
        value, (path, leaf) = arrays[name], name.rsplit('/', 1)
        entry = f'StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/{path}/{leaves[leaf]}'
        if name in ABSENT:
            continue
        if leaf == 'kernel' and value.ndim == 2:
            entry = f'StatefulPartitionedCall/jax2tf_arg_{number}/ReadVariableOp'
        elif 'ConvTranspose' in path and leaf == 'kernel':
            entry, value = entry.replace('transpose_3', 'transpose_4'), value[::-1, ::-1].swapaxes(2, 3)
        elif leaf != 'kernel':
            value = value.reshape(1, 1, 1, -1)
            entry = entry.replace('Reshape', 'Reshape_3') if 'norm' in path.lower() and leaf == 'bias' else entry
        constants = {'/Const_1': np.array(number, np.int32), '/jit_x/Reshape': np.ones(1, np.float32)}
        for more, constant in {'': value, **constants}.items():
            weights.append({'name': entry + more, 'shape': constant.shape, 'dtype': str(constant.dtype)})
            content += constant.tobytes()
    size = -(-len(content) // 3)
    paths = [f'group1-shard{i + 1}of3.bin' for i in range(3)]
    for i, path in enumerate(paths):
        (folder / path).write_bytes(content[i * size:(i + 1) * size])
    (folder / 'model.json').write_text(json.dumps({'weightsManifest': [{'paths': paths, 'weights': weights}]}))
    return folder


def test_tfjs_folder_gives_the_authors_arrays(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    read = read_tfjs(write_tfjs(tmp_path, arrays))
    assert sorted([*read, *ABSENT]) == sorted(arrays)
    assert all(np.array_equal(value, arrays[name]) for name, value in read.items())


def rewrite(folder: Path, change) -> None:
    graph = json.loads((folder / 'model.json').read_text())
    change(graph['weightsManifest'][0])
    (folder / 'model.json').write_text(json.dumps(graph))


@pytest.mark.parametrize('harm, named', [
    (lambda folder: (folder / 'group1-shard2of3.bin').unlink(), '1 of 3 shards .*shard2of3'),
    (lambda folder: (folder / 'group1-shard2of3.bin').write_bytes(b'short'), 'shard2of3.bin is the one of another size'),
    (lambda folder: (folder / 'group1-shard3of3.bin').open('ab').write(b'more'), 'shard3of3.bin is the one of another size'),
    (lambda folder: (folder / 'model.json').unlink(), 'model.json does not exist'),
    (lambda folder: (folder / 'model.json').write_text('[1'), 'model.json is damaged'),
    (lambda folder: rewrite(folder, lambda group: group['paths'].append('../../x.bin')), 'outside its folder'),
    (lambda folder: rewrite(folder, lambda group: group['weights'][0].update(quantization={})), 'quantised'),
    (lambda folder: rewrite(folder, lambda group: group['weights'][0].update(dtype='string')), 'damaged'),
])
def test_harmed_tfjs_folder_is_told(arrays: dict[str, np.ndarray], tmp_path: Path, harm, named: str) -> None:
    harm(write_tfjs(tmp_path, arrays))
    with pytest.raises(InputError, match=named):
        read_tfjs(tmp_path)
