"""Systems under evaluation: folders of restored images, or networks that restore them first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..archs.memory_format import placed
from ..archs.pretrained import complete_options, is_tfjs, read_weights, require_network
from ..archs.sampling import rules_of
from ..archs.spandrel_arch import SpandrelNet
from ..checkpoints.catalogue import catalogue
from ..checkpoints.sharded import is_sharded
from ..checkpoints.weights_folder import available_weights, find_weights
from ..errors import InputError
from ..files import sha256_of
from ..inference.memory import total_memory
from ..inference.operating_point import OperatingPoint, check_tiles_and_windows, operating_points_of
from ..inference.weights import build_with_weights, load_network
from ..registration import register_all
from ..settings.options_file import read_options_file
from ..values import BLOCK, NAME, TEXT, check_kinds, one_of, optional


@dataclass(frozen=True)
class Folders:
    """Images that a system has restored already: one folder, or one per seed."""

    name: str
    folders: tuple[Path, ...]

    @property
    def record(self) -> dict[str, Any]:
        """What is written down beside the scores."""
        return {'folders': [str(folder) for folder in self.folders]}


@dataclass(frozen=True)
class Network:
    """A network that restores the blurred images.

    Attributes:
        name: Its name in the table.
        source: Options file or checkpoint as given.
        checkpoint: File, or folder, of the weights.
        network: Options of the network.
        param_key: Which weights in the file.
        points: Operating points by name; empty for deterministic networks.
        precision: ``float32`` or ``bfloat16``.
        tile, window: As in ``val:``.
    """

    name: str
    source: Path
    checkpoint: Path
    network: Mapping[str, Any] = field(hash=False)
    param_key: str = 'params_ema'
    points: Mapping[str, OperatingPoint] = field(default_factory=dict, hash=False)
    precision: str = 'float32'
    tile: int | str | None = None
    window: int | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of weights and options: equal networks restore equally."""
        options = json.dumps([self.network, self.param_key, self.precision, tile_key(self.tile), self.window], sort_keys=True)
        return f'{_file_hash(self.checkpoint)}-{hashlib.sha256(options.encode()).hexdigest()[:8]}'

    @property
    def record(self) -> dict[str, Any]:
        """What is written down beside the scores."""
        return {'source': str(self.source), 'checkpoint': str(self.checkpoint),
                'checkpoint_sha256': _file_hash(self.checkpoint), 'precision': self.precision, 'tile': self.tile,
                'window': self.window,
                'operating_points': {name: point.as_options() for name, point in self.points.items()}}

    def load(self, device: torch.device) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises:
            InputError: If they do not fit.
        """
        register_all()  # it may be one of BasicSR's own
        weights = read_weights(self.checkpoint, prefer=self.param_key)
        if self.network.get('type') == SpandrelNet.__name__:  # only spandrel knows the names in its files
            weights = require_network(weights, str(self.checkpoint))
        net = build_with_weights(self.network, weights.params, f'{self.source}: network', str(self.checkpoint))
        return placed(net, device).eval()


System = Folders | Network


def _file_hash(path: Path) -> str:
    status = path.stat()
    return _hash_of_version(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _hash_of_version(path: Path, modified: int, size: int) -> str:
    """The hash of a file as it was last modified; a large checkpoint is read once."""
    return sha256_of(path)[:16]


def tile_key(tile: int | str | None) -> Any:
    """What decides how images are cut: with ``auto`` the memory of this machine's devices."""
    if tile != 'auto':
        return tile
    kinds = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    return [tile, *(total_memory(torch.device(kind)) for kind in kinds)]


def parse_system(text: str) -> System:
    """A system from ``NAME=SOURCE`` or ``SOURCE``.

    SOURCE is a folder of restored images (several, one per seed, joined by commas), an options file, a checkpoint or the name
    of bundled weights. A training's options file means the weights that it ended with.

    Raises:
        InputError: If there is no such source, or it does not say what is needed.
    """
    name, equals, source = text.partition('=')
    if not equals:
        name, source = Path(text).stem, text
    if not name or not source:
        raise InputError(f"'{text}' is no system; write NAME=FOLDER, NAME=options.yml or NAME=checkpoint.pth.")
    parts = tuple(Path(part).expanduser() for part in source.split(','))
    if all(part.is_dir() and not is_sharded(part) and not is_tfjs(part) for part in parts):
        return Folders(name, parts)
    path = Path(source).expanduser()
    if path.suffix in ('.yml', '.yaml'):
        return _from_options_file(name, path)
    known = {*available_weights(), *catalogue()}
    if not path.is_file() and not is_sharded(path) and not is_tfjs(path) and source not in known:
        raise InputError(f"{name}: '{source}' is no folder, options file (.yml), checkpoint or name of weights "
                         f'({", ".join(sorted(known))}); check the path.')
    checkpoint = find_weights(source)
    _, points, metadata = load_network(checkpoint)
    return Network(name, path, checkpoint, dict(metadata['network']), points=points, window=metadata.get('window'))


def _from_options_file(name: str, path: Path) -> Network:
    try:
        opt = read_options_file(path)
    except InputError as error:
        raise InputError(f'{name}: {error}') from None
    if 'network_g' not in opt:
        raise InputError(f"{name}: options file {path} lacks the block 'network_g'; give one of a training or a test.")
    register_all()
    where = f'{name}: options file {path}'
    check_kinds(opt, {'name': NAME, 'network_g': BLOCK, 'val': optional(BLOCK), 'path': optional(BLOCK), 'train': BLOCK}, where)
    val, paths = opt.get('val') or {}, opt.get('path') or {}
    check_kinds(val, {'precision': one_of('float32', 'bfloat16')}, f'{where}: val')
    check_kinds(paths, {'pretrain_network_g': optional(TEXT), 'param_key_g': optional(TEXT)}, f'{where}: path')
    check_tiles_and_windows(val)
    weights = f"experiments/{opt.get('name')}/models/net_g_latest.pth" if 'train' in opt else paths.get('pretrain_network_g')
    if weights in available_weights():
        weights = find_weights(weights)
    if not weights or not Path(weights).exists():
        raise InputError(f"{name}: the weights {weights or '(none)'} that {path} names do not exist; train them, or set path: "
                         'pretrain_network_g in a test options file.')
    network = complete_options(opt['network_g'], f'{where}: network_g')
    rules = rules_of(network) if 'type' in network else None
    points = {} if rules is None else operating_points_of(val, rules)
    return Network(name, path, Path(weights), network, paths.get('param_key_g') or 'params_ema', points,
                   val.get('precision', 'float32'), val.get('tile'), val.get('crop_size') if val.get('grids') else None)
