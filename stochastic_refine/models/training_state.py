"""Finding and reading the checkpoint from which a training goes on."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from basicsr.utils import check_resume

from ..checkpoints import remove_leftovers
from ..checkpoints.sharded import is_sharded, read_sharded
from ..checkpoints.torch_files import read_torch_file
from ..errors import InputError


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
        try:
            state = read_sharded(path) if path.is_dir() else read_torch_file(path, 'Training state')
        except InputError:
            if not opt['auto_resume']:
                raise
            continue
        if not isinstance(state, dict) or 'iter' not in state:
            continue
        if not all(_is_whole(models / f"net_{label}_{state['iter']}.pth") for label in labels):
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


def _is_whole(path: Path) -> bool:
    """Whether a network's checkpoint is there and not cut short; a ZIP archive's directory is at its end."""
    return is_sharded(path) or (path.is_file() and zipfile.is_zipfile(path))
