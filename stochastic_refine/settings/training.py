"""The block ``train:`` of an options file: its keys, losses, optimizer and schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InputError
from ..values import (
    BLOCK,
    COUNT,
    FLAG,
    NUMBERS,
    attempt,
    check_arguments,
    check_kinds,
    known_type,
    number,
    one_of,
    optional,
    refuse_slips,
    require,
)

LONG = 10**12  # no training has so many iterations
_LOSSES = ('pixel_opt', 'perceptual_opt', 'gan_opt', 'noise_opt', 'flow_opt', 'initial_opt', 'latent_opt', 'prior_opt',
           'image_opt')
_TRAIN = {'ema_decay': number(0, 1), 'optim_g': BLOCK, 'optim_d': optional(BLOCK), 'scheduler': BLOCK,
          'total_iter': number(1, LONG), 'warmup_iter': number(-1, LONG), **dict.fromkeys(_LOSSES, optional(BLOCK)),
          'precision': one_of('float32', 'bfloat16'), 'accumulate': COUNT, 'grad_clip': optional(number(0)), 'compile': FLAG,
          'net_d_iters': COUNT, 'net_d_init_iters': number(0, 10**9, whole=True), 'gan_pool_size': number(0, 10**9, whole=True),
          'distillation': optional(BLOCK)}
TRAIN_KEYS = {*_TRAIN, 'activation_checkpointing', 'fix_flow', 'flow_lr_mul'}
_SCHEDULER = {'periods': NUMBERS, 'restart_weights': NUMBERS, 'eta_mins': NUMBERS, 'milestones': NUMBERS}


def check_train(train: Mapping[str, Any], registry: Any, model: type) -> None:
    # Other models have keys of their own; only what looks like a slip of the pen is refused.
    refuse_slips(train, TRAIN_KEYS, 'train')
    check_kinds(train, _TRAIN, 'train')
    for key, options in train.items():
        if key.endswith('_opt') and options:
            where = f'train: {key}'
            require(options, ('type', ), where)
            known_type(options['type'], registry.LOSS_REGISTRY, f'{where}: type')
            loss = registry.LOSS_REGISTRY.get(options['type'])
            check_arguments(loss, options, where)
            if 'Perceptual' not in options['type'] and 'LPIPS' not in options['type']:  # those load a network
                attempt(where, loss, **_without_type(options))
    _check_scheduler(train, model, _check_optimizer(train, model))


def _without_type(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != 'type'}


def _check_optimizer(train: Mapping[str, Any], model: type) -> torch.optim.Optimizer | None:
    """The generator's optimizer, of one stray parameter; None for models of BasicSR's own."""
    made = []
    for key in ('optim_g', 'optim_d'):
        options, where = train.get(key), f'train: {key}'
        if key == 'optim_d' and not options:
            continue
        require(options, ('type', 'lr'), where)
        check_kinds(options, {'lr': number(0)}, where)
        if hasattr(model, 'check_options'):  # the others know fewer types than torch.optim
            known = {name: cls for name, cls in vars(torch.optim).items() if isinstance(cls, type)}
            known_type(options['type'], known, f'{where}: type')
            optimizer = known[options['type']]
            check_arguments(optimizer, options, where, given=('params', ))
            parameter = torch.zeros(2, 2, requires_grad=True)
            made.append(attempt(where, optimizer, [parameter], **_without_type(options)))
    return made[0] if made else None


def _check_scheduler(train: Mapping[str, Any], model: type, optimizer: torch.optim.Optimizer | None) -> None:
    from basicsr.models.base_model import BaseModel

    from ..models.lr_scheduler import SCHEDULERS
    where, options, total_iter = 'train: scheduler', train['scheduler'], train['total_iter']
    require(options, ('type', ), where)
    known = SCHEDULERS
    if not hasattr(model, 'check_options'):
        if model.setup_schedulers is not BaseModel.setup_schedulers:
            return
        known = {name: SCHEDULERS[name] for name in ('MultiStepLR', 'MultiStepRestartLR', 'CosineAnnealingRestartLR')}
    known_type(options['type'], known, f'{where}: type')
    check_kinds(options, _SCHEDULER, where)
    scheduler = known[options['type']]
    check_arguments(scheduler, options, where, given=('optimizer', ))
    if 'periods' in options:
        periods = options['periods']
        for key in {'restart_weights', 'eta_mins'} & inspect.signature(scheduler).parameters.keys():
            values = options.get(key, [1])  # what is not given is one number
            if len(periods) != len(values):
                raise InputError(f'{where}: there are {len(periods)} periods but {len(values)} {key}; give one for each.')
        if sum(periods) < total_iter:
            raise InputError(f'{where}: the periods end at iteration {sum(periods)}, before total_iter {total_iter}; make them '
                             'longer.')
    if options['type'] == 'OneCycleLR' and (options.get('total_steps') or 0) < total_iter:
        raise InputError(f"{where}: OneCycleLR needs total_steps of at least total_iter {total_iter}, got "
                         f"{options.get('total_steps')}.")
    if optimizer is not None:
        attempt(where, scheduler, optimizer, **_without_type(options))
