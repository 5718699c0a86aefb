"""Finding and reading the checkpoint from which a training goes on, and what of its options has changed since."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import check_resume

from ..checkpoints import remove_leftovers
from ..checkpoints.sharded import is_sharded, read_sharded
from ..checkpoints.torch_files import read_torch_file
from ..errors import InputError

#: Options of ``train:`` that are in the states of optimizers and schedules too, where they would win unseen.
_IN_STATES = ('optim_g', 'optim_d', 'scheduler')


def options_in_states(train_opt: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a training state keeps, so that a change shows when it is resumed."""
    return {key: dict(train_opt[key]) for key in _IN_STATES if train_opt.get(key)}


def changed_options(state: Mapping[str, Any], train_opt: Mapping[str, Any]) -> list[str]:
    """How these options differ from those that a training state was saved with, in words; none if it does not tell, as earlier
    versions' do not.

    Raises:
        InputError: If an optimizer is of another type, which cannot go on with the state of the first.
    """
    changes = []
    for key, before in state.get('options', {}).items():
        now = train_opt.get(key) or {}
        if key != 'scheduler' and before.get('type') != now.get('type'):
            raise InputError(f"train: {key}: the training that is resumed has used {before.get('type')}, whose state is none "
                             f"of {now.get('type')}; keep it, or start anew from its weights with path: pretrain_network_g.")
        changes += [f'train: {key}: {name} {now.get(name)} (was {before.get(name)})'
                    for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    return changes


def resume_with_new_options(state: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer],
                            schedulers: Sequence[torch.optim.lr_scheduler.LRScheduler]) -> None:
    """Give optimizers the moments alone of a training state, and bring schedules to its iteration: both are as newly made.

    Raises:
        ValueError: If the state is of other parameters.
    """
    for optimizer, saved in zip(optimizers, state['optimizers'], strict=True):
        groups = [{**own, 'params': group['params']}
                  for own, group in zip(optimizer.state_dict()['param_groups'], saved['param_groups'], strict=True)]
        optimizer.load_state_dict({'state': saved['state'], 'param_groups': groups})
    with warnings.catch_warnings():  # that the optimizer has made no step yet
        warnings.simplefilter('ignore')
        for scheduler in schedulers:
            for _ in range(state['iter'] - 1):
                scheduler.step()


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """BasicSR's function of this name, working without a GPU, from any folder, and after any crash.

    BasicSR 1.4.2 moves the state to CUDA, looks for it relative to the current folder, and does not survive a state cut short.
    Here the newest state that is whole, with all its networks, is taken, and what a killed process left half-written is
    removed. The networks' own weights are resumed, not the averaged ones, whatever ``param_key`` says, and the training goes on
    with the seed that it was started with.

    Returns:
        The state; None where there is none to resume from.

    Raises:
        InputError: If there are states but none can be used.
    """
    folder, models = Path(opt['path']['training_states']), Path(opt['path']['models'])
    if opt['rank'] == 0:
        for place in (folder, models):
            remove_leftovers(place)
    if opt['auto_resume']:
        iterations = [int(path.stem) for path in folder.glob('*.state') if path.stem.isdigit()]
        candidates = [folder / f'{iteration}.state' for iteration in sorted(iterations, reverse=True)]
    else:
        candidates = [Path(opt['path']['resume_state'])] if opt['path'].get('resume_state') else []
        if candidates and not candidates[0].exists():
            raise InputError(f'path: resume_state {candidates[0]} does not exist; check the path or remove the key.')
    ignored = opt['path'].get('ignore_resume_networks') or []
    labels = [key.removeprefix('network_') for key in opt if key.startswith('network_') and key not in ignored]
    for path in candidates:
        if not opt['auto_resume'] and path.is_dir() and not is_sharded(path):
            raise InputError(f'path: resume_state {path} is a folder, not a training state; {_nearest_state(path)}.')
        try:
            state = read_sharded(path) if path.is_dir() else read_torch_file(path, 'Training state')
        except InputError:
            if not opt['auto_resume']:
                raise
            continue
        if not isinstance(state, dict) or 'iter' not in state:
            if not opt['auto_resume']:
                raise InputError(f'path: resume_state {path} holds weights or something else, not a training state; '
                                 f'{_nearest_state(path)}.')
            continue
        missing = [file for label in labels if not _is_whole(file := models / f"net_{label}_{state['iter']}.pth")]
        if missing:
            if not opt['auto_resume']:
                raise InputError(f'path: resume_state {path} needs {missing[0]}, which is missing or cut short; take another '
                                 'state, or start anew without resume_state.')
            continue
        opt['path']['resume_state'] = str(path)
        check_resume(opt, state['iter'])
        opt['path'].update({f'param_key_{label}': 'params' for label in labels})
        opt['manual_seed'] = state.get('manual_seed', opt['manual_seed'])  # states of earlier versions have none
        return state
    if candidates:
        raise InputError(f'No training state in {candidates[0].parent} is whole and has its networks beside it; start anew '
                         'without --auto_resume and resume_state.')
    return None


def _nearest_state(path: Path) -> str:
    """What to give as ``resume_state`` instead of a file of weights or a folder, as words of advice."""
    number = re.search(r'\d+$', path.stem)
    for folder in (path, path / 'training_states', path.parent, path.parent.parent / 'training_states'):
        states = {int(state.stem): state for state in folder.glob('*.state') if state.stem.isdigit()}
        if states:
            return f'give {states.get(int(number[0]) if number else -1, states[max(states)])}'
    return 'give one of training_states/*.state of an experiment'


def _is_whole(path: Path) -> bool:
    """Whether a network's checkpoint is there and not cut short; a ZIP archive's directory is at its end."""
    return is_sharded(path) or (path.is_file() and zipfile.is_zipfile(path))
