"""OpenMMLab's ``tools/train.py`` for configs of this package, or any other's."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ...checkpoints.torch_files import read_torch_file
from ...errors import InputError, words_of
from .hooks import PortableCheckpointHook
from .model import StochasticRefine


def main(argv: list[str] | None = None) -> None:
    """Train by a config.

    Raises:
        InputError: If config or checkpoint cannot be used.
    """
    args = _parser().parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', '0')
    cfg = _read(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    if args.launcher != 'none' and not torch.cuda.is_available():
        raise InputError(f'--launcher {args.launcher} needs GPUs, as mmengine calls CUDA for it; train in one process, or in '
                         'several on CPUs by BasicSR: torchrun ... basicsr/train.py --launcher pytorch.')
    _set_precision(cfg, args.amp)
    _set_learning_rate(cfg, args.auto_scale_lr)
    _add_hook(cfg)
    _set_checkpoint(cfg, args.resume)
    runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    runner.train()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m stochastic_refine.integrations.mmengine',
                                     description="Train by a config of OpenMMLab's kind, e.g. options/mmengine/train_demo.py.")
    parser.add_argument('config', help='the config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='FILE',
                        help='go on from a checkpoint, by default from the latest one in the work folder')
    parser.add_argument('--amp', action='store_true', help='mixed precision; on a CPU bfloat16')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the size of the batch')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings in place of the config\'s, e.g. train_cfg.max_iters=100')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)  # of old launchers
    return parser


def _read(path: str) -> Config:
    if not Path(path).is_file():
        raise InputError(f'Config {path} does not exist; give one, for example options/mmengine/train_demo.py.')
    try:
        return Config.fromfile(path)
    except InputError:
        raise
    except Exception as error:  # it is Python, which can fail in any way
        raise InputError(f'Config {path} cannot be read ({type(error).__name__}: {words_of(error)}); correct it.') from error


def _is_ours(cfg: Config) -> bool:
    return str(cfg.get('model', {}).get('type', '')).rpartition('.')[2] == StochasticRefine.__name__


def _set_precision(cfg: Config, amp: bool) -> None:
    if not amp:
        return
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif _is_ours(cfg):  # AmpOptimWrapper refuses CPUs
        cfg.model.precision = 'bfloat16'
    else:
        raise InputError('--amp needs a GPU for this model; leave it out.')


def _set_learning_rate(cfg: Config, auto_scale: bool) -> None:
    if auto_scale:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError('--auto-scale-lr needs the batch that the learning rate is meant for; add auto_scale_lr = '
                             'dict(base_batch_size=256) to the config.')
        cfg.auto_scale_lr.enable = True


def _add_hook(cfg: Config) -> None:
    """Checkpoints that can be resumed, whatever the config says."""
    hooks = cfg.get('custom_hooks') or []
    name = PortableCheckpointHook.__name__
    if not any(str(hook.get('type')).rpartition('.')[2] == name for hook in hooks):
        cfg.custom_hooks = [*hooks, {'type': f'stochastic_refine.{name}'}]


def _set_checkpoint(cfg: Config, resume: str | None) -> None:
    """Check what is to be resumed from, or weights to start from, before PyTorch refuses it in many lines."""
    if resume is not None:
        cfg.resume, cfg.load_from = True, None if resume == 'auto' else resume
    path = cfg.get('load_from') or (find_latest_checkpoint(cfg.work_dir) if cfg.get('resume') else None)
    if path is None or '://' in path:
        return
    try:
        content = read_torch_file(path)
    except InputError as error:
        if 'Python objects' not in str(error):
            raise
        raise InputError(f'{path} holds Python objects besides tensors, as mmengine writes them, and was not loaded, because '
                         'they could run code; have checkpoints written by this command, or with custom_hooks = '
                         f"[dict(type='stochastic_refine.{PortableCheckpointHook.__name__}')], and train anew.") from error
    if not isinstance(content, dict) or 'state_dict' not in content or cfg.get('resume') and 'optimizer' not in content:
        raise InputError(f'{path} is no checkpoint of a training by mmengine, from which one could go on; start from its '
                         f'weights with --cfg-options model.pretrained={path}')
