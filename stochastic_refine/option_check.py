"""Check an options file before anything is created: types, keys and folders, each with a sentence that names the remedy.

BasicSR passes over misspelt optional keys in silence and answers the required ones with a bare KeyError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .archs.build import check_arch_options, nearest
from .errors import InputError

#: Keys of BasicSR's ``path:`` block that are not made from a network's name.
_PATH_KEYS = {'resume_state', 'root', 'experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root',
              'ignore_resume_networks'}
_NETWORK_PATH_KEYS = ('pretrain_network', 'param_key', 'strict_load')
_TRAIN_KEYS = {'ema_decay', 'optim_g', 'optim_d', 'scheduler', 'total_iter', 'warmup_iter', 'pixel_opt', 'perceptual_opt',
               'gan_opt', 'precision', 'accumulate', 'grad_clip', 'compile', 'noise_opt', 'initial_opt', 'net_d_iters',
               'net_d_init_iters', 'fix_flow', 'flow_lr_mul'}
_REQUIRED = {
    'top': ('name', 'model_type', 'num_gpu', 'datasets', 'network_g', 'path'),
    'train': ('optim_g', 'scheduler', 'total_iter'),
    'logger': ('print_freq', 'save_checkpoint_freq', 'use_tb_logger'),
    'train data': ('batch_size_per_gpu', 'num_worker_per_gpu'),
}


def check_options_file(argv: list[str]) -> None:
    """Check that the file after ``-opt`` is there; whether ``-opt`` is given is the argument parser's business."""
    if '-opt' in argv[:-1]:
        path = Path(argv[argv.index('-opt') + 1])
        if not path.is_file():
            raise InputError(f'Options file {path} does not exist; give one, for example options/train_gopro.yml.')


def check_options(opt: dict[str, Any]) -> None:
    """Check parsed options of a training or a test.

    Raises:
        InputError: At the first thing that would fail, or be ignored, later.
    """
    from basicsr.utils import registry
    is_train = opt['is_train']
    _require(opt, _REQUIRED['top'], 'The options file')
    _known_type(opt['model_type'], registry.MODEL_REGISTRY, 'model_type')
    for key, options in opt.items():
        if key.startswith('network_'):
            check_arch_options(options, key)
    for key in opt['path']:
        if key not in _PATH_KEYS and not key.startswith(_NETWORK_PATH_KEYS):
            raise InputError(f"path: unknown key '{key}'; {nearest(key, _PATH_KEYS | {'pretrain_network_g', 'param_key_g'})}")
    for key, value in opt['path'].items():
        if key.startswith('pretrain_network') and value and not Path(value).is_file():
            raise InputError(f'path: {key} {value} does not exist; check the path or set it to ~.')
    if is_train:
        _require(opt, ('train', 'logger'), 'The options file')
        _require(opt['train'], _REQUIRED['train'], 'train')
        _require(opt['logger'], _REQUIRED['logger'], 'logger')
        _check_train(opt['train'], registry)
    for name, dataset in opt['datasets'].items():
        _check_dataset(name, dataset, registry)
    if is_train and 'train' not in opt['datasets']:
        raise InputError(f"datasets: needs a block 'train'; there are {', '.join(opt['datasets'])}.")
    _check_val(opt, registry)


def _check_train(train: Mapping[str, Any], registry: Any) -> None:
    for key in train:
        # Other models have keys of their own; only what looks like a slip of the pen is refused.
        if key not in _TRAIN_KEYS and difflib.get_close_matches(key, _TRAIN_KEYS, cutoff=0.75):
            raise InputError(f"train: unknown key '{key}'; {nearest(key, _TRAIN_KEYS)}")
    for key, options in train.items():
        if key.endswith('_opt') and isinstance(options, Mapping):
            _known_type(options.get('type'), registry.LOSS_REGISTRY, f'train: {key}: type')
    for block in ('optim_g', 'scheduler'):
        _require(train[block], ('type', ), f'train: {block}')
    accumulate = train.get('accumulate', 1)
    if not isinstance(accumulate, int) or accumulate < 1:
        raise InputError(f'train: accumulate must be a whole number from 1, got {accumulate!r}.')


def _check_dataset(name: str, dataset: dict[str, Any], registry: Any) -> None:
    where = f'datasets: {name}'
    phase = name.split('_')[0]
    if phase not in ('train', 'val', 'test'):
        raise InputError(f"{where}: a data set's block is called train, val or test (or val_2, test_hide, ...), not '{name}'.")
    _require(dataset, ('name', 'type'), where)
    _known_type(dataset['type'], registry.DATASET_REGISTRY, f'{where}: type')
    if phase == 'train':
        _require(dataset, _REQUIRED['train data'], where)
    roots = [key for key in dataset if key.startswith('dataroot')]
    if dataset['type'] == 'PairedImageDataset':
        _require(dataset, ('dataroot_gt', 'dataroot_lq', 'io_backend'), where)
    for key in roots:
        if dataset[key] is None:
            raise InputError(f'{where}: {key} is empty; give the folder.')
        if not Path(dataset[key]).expanduser().exists():
            raise InputError(f'{where}: {key} {dataset[key]} does not exist; correct the path, or lay the data out with '
                             'stochastic-refine prepare.')
    if dataset['type'] == 'PairedImageDataset' and dataset['io_backend'].get('type') == 'disk':
        _check_pairs(where, Path(dataset['dataroot_lq']).expanduser(), Path(dataset['dataroot_gt']).expanduser(), dataset)


def _check_pairs(where: str, lq: Path, gt: Path, dataset: Mapping[str, Any]) -> None:
    """Check that both folders hold images of the same names."""
    from .data.synthetic_blur_dataset import find_images
    template = dataset.get('filename_tmpl', '{}')
    gt_names = {str(path.relative_to(gt).with_suffix('')) for path in find_images(gt)}
    lq_names = {str(path.relative_to(lq).with_suffix('')) for path in find_images(lq)}
    expected = {template.format(name) for name in gt_names}
    if lq_names != expected:
        only_lq, only_gt = sorted(lq_names - expected), sorted(expected - lq_names)
        lone = [f'{len(names)} only in {folder} (first: {names[0]})' for names, folder in ((only_lq, lq), (only_gt, gt)) if names]
        raise InputError(f'{where}: images do not pair up by name: {"; ".join(lone)}. Remove or add the missing ones.')


def _check_val(opt: Mapping[str, Any], registry: Any) -> None:
    val = opt.get('val')
    if val is None:
        if not opt['is_train']:
            raise InputError("The options file lacks the block 'val', which says how to validate.")
        return
    _require(val, ('save_img', 'val_freq') if opt['is_train'] else ('save_img', ), 'val')
    for name, options in (val.get('metrics') or {}).items():
        _known_type(options.get('type'), registry.METRIC_REGISTRY, f'val: metrics: {name}: type')


def _require(block: Any, keys: Iterable[str], where: str) -> None:
    if not isinstance(block, Mapping):
        raise InputError(f'{where} must be a block of keys, got {block!r}.')
    for key in keys:
        if key not in block:
            close = difflib.get_close_matches(key, block, n=1, cutoff=0.7)
            raise InputError(f"{where} lacks the key '{key}'{f' (is {close[0]} meant for it?)' if close else ''}; add it.")


def _known_type(name: Any, registry: Any, where: str) -> None:
    known = [key.removesuffix('_basicsr') for key in registry.keys()]
    if name not in known:
        raise InputError(f"{where} '{name}' is unknown; {nearest(str(name), known)}")
