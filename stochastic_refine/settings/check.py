"""Check an options file before anything is created: types, keys, values and folders, each with a sentence naming the remedy.

BasicSR passes over misspelt optional keys in silence, answers the required ones with a bare KeyError, and meets some mistakes
only at the first validation or when a learning-rate schedule ends.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..archs.build import ARCHS, arch_class, check_arch_options, plan_arch
from ..archs.pretrained import check_weights, complete_networks, read_weights, require_network
from ..archs.spandrel_arch import SpandrelNet
from ..checkpoints import Checkpoint
from ..checkpoints.catalogue import catalogue
from ..checkpoints.sharded import check_shardable
from ..checkpoints.weights_folder import find_weights
from ..errors import InputError
from ..inference.operating_point import VALIDATION_KEYS, OperatingPoint, check_sampling
from ..inference.weights import check_runs
from ..processes import refuse_several_gpus
from ..values import (
    BLOCK,
    COUNT,
    FLAG,
    NAME,
    TEXT,
    check_arguments,
    check_kinds,
    known_type,
    number,
    one_of,
    optional,
    refuse_slips,
    refuse_unknown,
    refuse_what_is_no_number,
    require,
)
from .command_line import read_command_line
from .datasets import check_dataset, unused_dataset_keys
from .options_file import read_options_file
from .training import LONG, TRAIN_KEYS, check_train

#: Keys of the whole file; the last row is added by BasicSR.
_TOP = {'name': NAME, 'model_type': TEXT, 'manual_seed': optional(number(0, 10**9, whole=True)),
        'scale': COUNT, 'val': optional(BLOCK), 'dist_params': BLOCK, 'find_unused_parameters': FLAG}
_TOP_KEYS = {*_TOP, 'datasets', 'path', 'train', 'logger', 'num_gpu',
             'dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path'}
#: Keys of BasicSR's ``path:`` block that are not made from a network's name.
_PATH = dict.fromkeys(('resume_state', 'root', 'experiments_root', 'models', 'training_states', 'log', 'visualization',
                       'results_root'), optional(TEXT))
_NETWORK_PATH = {'pretrain_network': optional(TEXT), 'param_key': optional(TEXT), 'strict_load': FLAG}
_VAL = {'val_freq': number(1, LONG), 'save_img': FLAG, 'pbar': FLAG, 'suffix': optional(NAME), 'metrics': optional(BLOCK),
        'precision': one_of('float32', 'bfloat16'), 'score_input': FLAG}
_METRIC = {'crop_border': number(0, 10**9, whole=True), 'test_y_channel': FLAG, 'input_order': one_of('HWC', 'CHW'),
           'better': one_of('higher', 'lower')}
_LOGGER = {'print_freq': number(1, LONG), 'save_checkpoint_freq': number(1, LONG), 'use_tb_logger': FLAG,
           'wandb': optional(BLOCK)}
_REQUIRED = {
    'top': ('name', 'model_type', 'num_gpu', 'datasets', 'network_g', 'path'),
    'train': ('optim_g', 'scheduler', 'total_iter'),
    'logger': ('print_freq', 'save_checkpoint_freq', 'use_tb_logger'),
}


def check_options_file(argv: list[str]) -> None:
    """Check that the file after ``-opt`` can be read and has the blocks that BasicSR's parser goes through, and what
    ``--force_yml`` sets in it.

    Whether ``-opt`` is given is the parser's own business.
    """
    path = read_command_line(argv).options_file
    if path is None:
        return
    if not Path(path).is_file():
        raise InputError(f'Options file {path} does not exist; give one, for example options/train_gopro.yml.')
    content = read_options_file(path)
    require(content, ('name', 'datasets', 'path'), f'Options file {path}')
    check_kinds(content, _TOP, f'Options file {path}')
    require(content['path'], (), 'path')
    require(content['datasets'], (), 'datasets')
    opened = [key for key in content['path'] if 'resume_state' in key or 'pretrain_' in key]
    check_kinds(content['path'], dict.fromkeys(opened, optional(TEXT)), 'path')
    for name, dataset in content['datasets'].items():
        require(dataset, (), f'datasets: {name}')
        check_kinds(dataset, {'dataroot_gt': TEXT, 'dataroot_lq': TEXT}, f'datasets: {name}')


def check_options(opt: dict[str, Any]) -> None:
    """Check parsed options of a training or a test.

    Raises:
        InputError: At the first thing that would fail, or be ignored, later.
    """
    from basicsr.utils import registry
    is_train = opt['is_train']
    require(opt, _REQUIRED['top'], 'The options file')
    refuse_slips((key for key in opt if not key.startswith('network_')), _TOP_KEYS, 'The options file')
    refuse_what_is_no_number({key: value for key, value in opt.items() if key != 'name'}, '')
    check_kinds(opt, _TOP, 'The options file')
    check_kinds(opt.get('dist_params') or {}, {'backend': TEXT, 'port': number(1, 65536, whole=True)}, 'dist_params')
    _check_num_gpu(opt)
    known_type(opt['model_type'], registry.MODEL_REGISTRY, 'model_type')
    model = registry.MODEL_REGISTRY.get(opt['model_type'])
    _check_path(opt)
    opt.update(complete_networks(opt))
    for key, options in opt.items():
        if key.startswith('network_'):
            _check_network(options, key)
    if is_train:
        require(opt, ('train', 'logger'), 'The options file')
        require(opt['train'], _REQUIRED['train'], 'train')
        require(opt['logger'], _REQUIRED['logger'], 'logger')
        _check_logger(opt['logger'])
        check_train(opt['train'], registry, model)
    for name, dataset in opt['datasets'].items():
        check_dataset(name, dataset, registry.DATASET_REGISTRY, is_train)
        if dataset['type'] == 'PredictedImageDataset' and not getattr(model, 'uses_predictions', False):
            raise InputError(f"datasets: {name}: {opt['model_type']} would pass over the predictions of PredictedImageDataset; "
                             'use PairedImageDataset, or model_type: StochasticRefineModel.')
    if is_train and 'train' not in opt['datasets']:
        raise InputError(f"datasets: needs a block 'train'; there are {', '.join(opt['datasets'])}.")
    _check_val(opt, registry)
    if hasattr(model, 'check_options'):  # one of ours; the others have networks of other kinds
        model.check_options(opt)
        for key, options in opt.items():
            if key.startswith('network_'):
                _check_whole_network(options, key, opt['path'])


def misplaced_keys(opt: Mapping[str, Any]) -> list[str]:
    """Keys at the top of the options that have a meaning in one of its blocks only, each as a sentence.

    ``--force_yml total_iter=8`` makes such a key, for want of ``train:``; forks have keys of their own there.
    """
    blocks = {'train': TRAIN_KEYS, 'val': VALIDATION_KEYS, 'logger': set(_LOGGER)}
    return [f'{key} at the top of the options has no meaning; in the block {block} it has ({block}:{key}).'
            for key in opt if key not in _TOP_KEYS for block, known in blocks.items() if key in known]


def unused_keys(opt: Mapping[str, Any]) -> list[str]:
    """Keys of checked options that mean nothing to a model of this package, each as a sentence; others have their own keys."""
    from basicsr.utils import registry
    model = registry.MODEL_REGISTRY.get(opt['model_type'])
    if not hasattr(model, 'check_options'):
        return []
    losses = {f'{name}_opt' for name in model.losses_of(opt)} if hasattr(model, 'losses_of') else set()
    val = VALIDATION_KEYS | {field.name for field in dataclasses.fields(OperatingPoint)}
    found = [(where, key) for where, known in (('train', TRAIN_KEYS | losses), ('val', val)) for key in opt.get(where) or {}
             if key not in known]
    found += [(f'datasets: {name}', key) for name, dataset in opt['datasets'].items() for key in unused_dataset_keys(dataset)]
    return [f'{where}: {key} has no meaning here and no effect.' for where, key in found]


def _check_logger(logger: Mapping[str, Any]) -> None:
    check_kinds(logger, _LOGGER, 'logger')
    wandb = logger.get('wandb') or {}
    check_kinds(wandb, {'project': optional(TEXT), 'resume_id': optional(TEXT)}, 'logger: wandb')
    if logger.get('sharded_checkpoints'):
        check_shardable()
    if wandb.get('project') is not None and not logger['use_tb_logger']:
        raise InputError('logger: wandb: project needs use_tb_logger: true, whose records BasicSR hands to wandb.')
    needed = {'tensorboard': logger['use_tb_logger'], 'wandb': wandb.get('project') is not None}
    for package, is_needed in needed.items():
        if is_needed and importlib.util.find_spec(package) is None:
            key = 'use_tb_logger' if package == 'tensorboard' else 'wandb: project'
            raise InputError(f'logger: {key} needs the package {package}, which is not installed; run: pip install {package}, '
                             f"or set it to {'false' if package == 'tensorboard' else '~'}.")


def _check_num_gpu(opt: Mapping[str, Any]) -> None:
    if opt['num_gpu'] == 'auto':
        return
    check_kinds(opt, {'num_gpu': number(0, whole=True)}, 'The options file')
    if opt['num_gpu'] and not torch.cuda.is_available():
        raise InputError(f"num_gpu: {opt['num_gpu']} GPUs are asked for, but PyTorch finds none; set num_gpu: auto (or 0) to "
                         'use the CPU.')
    refuse_several_gpus(opt)


def _check_network(options: Any, where: str) -> None:
    """Check a network's keys, and those of the networks that are parts of it."""
    check_arch_options(options, where)
    check_arguments(arch_class(options['type']), options, where)
    check_sampling(options, where)
    for key, part in options.items():
        if isinstance(part, Mapping) and ('type' in part or key in ('predictor', 'denoiser')):
            _check_network({k: v for k, v in part.items() if k not in ('pretrained', 'frozen')}, f'{where}: {key}')
            check_kinds(part, {'pretrained': optional(TEXT), 'frozen': FLAG}, f'{where}: {key}')
            if part.get('pretrained') and not Path(part['pretrained']).exists():
                _check_known(part['pretrained'], f'{where}: {key}: pretrained', 'remove the key')


def _check_whole_network(options: Mapping[str, Any], where: str, path: Mapping[str, Any]) -> None:
    """Check that a network can be built and runs, and that the weights to start from are its own; on the meta device, where
    this costs no memory, and only for networks known to work there."""
    parts = {key: part for key, part in options.items() if isinstance(part, Mapping) and 'type' in part}
    if not {options['type'], *(part['type'] for part in parts.values())} <= ARCHS.keys():
        return
    plan = plan_arch(options, where)
    label = where.removeprefix('network_')
    if label == 'g':
        check_runs(plan, where)
    for key, part in parts.items():
        if part.get('pretrained'):
            check_weights(getattr(plan, key), _weights_of(part['pretrained'], part), f"{where}: {key}: {part['pretrained']}")
    weights = path.get(f'pretrain_network_{label}')
    if weights and path.get(f'strict_load_{label}', True):
        check_weights(plan, _weights_of(weights, options, path.get(f'param_key_{label}') or 'params'), weights)


def _weights_of(weights: str, network: Mapping[str, Any], prefer: str = 'params_ema') -> Checkpoint:
    checkpoint = read_weights(find_weights(weights), prefer)
    return require_network(checkpoint, weights) if network['type'] == SpandrelNet.__name__ else checkpoint


def _check_known(weights: str, where: str, remedy: str) -> None:
    """Check that weights which are no file are known by name."""
    try:
        find_weights(weights)
    except InputError as error:
        if weights in catalogue():
            raise InputError(f'{where}: {error}') from error
        raise InputError(f'{where} {weights} does not exist; check the path or {remedy}.') from error


def _check_path(opt: Mapping[str, Any]) -> None:
    names = {key.removeprefix('network_') for key in opt if key.startswith('network_')} | {'g', 'd'}
    known = {**_PATH, **{f'{key}_{name}': kind for key, kind in _NETWORK_PATH.items() for name in names}}
    check_kinds(opt['path'], known, 'path')
    refuse_unknown(opt['path'], {*known, 'ignore_resume_networks'}, 'path')
    for key, value in opt['path'].items():
        if key.startswith('pretrain_network') and value and not Path(value).exists():
            _check_known(value, f'path: {key}', 'set it to ~')


def _check_val(opt: Mapping[str, Any], registry: Any) -> None:
    val = opt.get('val')
    if val is None:
        if not opt['is_train']:
            raise InputError("The options file lacks the block 'val', which says how to validate.")
        return
    require(val, ('save_img', 'val_freq') if opt['is_train'] else ('save_img', ), 'val')
    refuse_slips(val, VALIDATION_KEYS, 'val')
    check_kinds(val, _VAL, 'val')
    for name, options in (val.get('metrics') or {}).items():
        where = f'val: metrics: {name}'
        require(options, ('type', ), where)
        known_type(options['type'], registry.METRIC_REGISTRY, f'{where}: type')
        check_kinds(options, _METRIC, where)
        check_arguments(registry.METRIC_REGISTRY.get(options['type']), options, where, given=('img', 'img2'))
