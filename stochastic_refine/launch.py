"""``train`` and ``test``: BasicSR's own pipelines, with our names registered and the options checked first.

Both ``python basicsr/train.py`` and ``stochastic-refine train`` end here.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from .errors import InputError
from .registration import prepare_basicsr, register_all


def main(mode: str, root: str) -> int:
    """Run BasicSR's training or test pipeline on ``sys.argv``.

    Args:
        mode: ``'train'`` or ``'test'``.
        root: Folder that gets ``experiments/``, ``tb_logger/`` and ``results/``.

    Returns:
        Exit code: 0; 2 after a sentence on standard error about unusable input; 130 after Ctrl-C.
    """
    try:
        _pipeline(mode)(root)
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(stop.args[0] if stop.args else 'Stopped; continue with --auto_resume from the last checkpoint.', file=sys.stderr)
        return 130
    return 0


def _pipeline(mode: str) -> Callable[[str], None]:
    """BasicSR's pipeline with what it looks up in its own module replaced where needed."""
    prepare_basicsr()
    _allow_processes_without_gpu()
    if mode == 'train':
        import basicsr.train as pipeline
        pipeline.load_resume_state = load_resume_state
        pipeline.create_train_val_dataloader = _with_epoch_length(pipeline.create_train_val_dataloader)
        run = pipeline.train_pipeline
    else:
        import basicsr.test as pipeline
        run = pipeline.test_pipeline
    register_all()
    from .data.checked_dataset import CheckedDataset
    build_dataset, parse_options = pipeline.build_dataset, pipeline.parse_options
    pipeline.build_dataset = lambda opt: CheckedDataset(build_dataset(opt))
    pipeline.parse_options = lambda *args, **kwargs: _parse_and_check(parse_options, *args, **kwargs)
    return run


def _parse_and_check(parse_options: Callable[..., Any], root: str, is_train: bool) -> Any:
    import yaml

    from .option_check import check_options, check_options_file
    check_options_file(sys.argv)
    try:
        opt, args = parse_options(root, is_train=is_train)
    except yaml.YAMLError as error:
        raise InputError(f'The options file is not valid YAML: {" ".join(str(error).split())}.') from error
    except KeyError as error:
        raise InputError(f'The options file lacks the key {error}, or --force_yml names one that does not exist.') from error
    opt['root_path'] = root
    check_options(opt)
    return opt, args


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """BasicSR's function of this name, working without a GPU and from any folder.

    BasicSR 1.4.2 moves the state to CUDA, looks for it relative to the current folder, and does not survive a state cut short
    by a crash. Here the newest state that is whole, with its network, is taken.
    """
    from basicsr.utils import check_resume
    folder = opt['path']['training_states']
    if opt['auto_resume']:
        iterations = sorted((int(f[:-6]) for f in os.listdir(folder) if f.endswith('.state')), reverse=True) \
            if os.path.isdir(folder) else []
        candidates = [os.path.join(folder, f'{iteration}.state') for iteration in iterations]
    else:
        candidates = [opt['path']['resume_state']] if opt['path'].get('resume_state') else []
    for path in candidates:
        state = _read_state(path)
        if state is None:
            continue
        network = os.path.join(opt['path']['models'], f"net_g_{state['iter']}.pth")
        if os.path.exists(network):
            opt['path']['resume_state'] = path
            check_resume(opt, state['iter'])
            return state
    if candidates:
        raise InputError(f'No training state in {os.path.dirname(candidates[0])} is whole and has its network beside it; '
                         'start anew without --auto_resume and resume_state.')
    return None


def _read_state(path: str) -> dict[str, Any] | None:
    import torch
    if not os.path.exists(path):
        raise InputError(f'path: resume_state {path} does not exist; check the path or remove the key.')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        return None


def _with_epoch_length(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap BasicSR's loader construction: refuse a data set smaller than a batch, and tell the model how long an epoch is."""

    def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> Any:
        result = create(opt, logger)
        loader = result[0]
        if len(loader) == 0:
            raise InputError(f"datasets: train has {len(loader.dataset)} images, fewer than one batch of "
                             f"{opt['datasets']['train']['batch_size_per_gpu']} on each of {opt['world_size']} processes; "
                             'lower batch_size_per_gpu or raise dataset_enlarge_ratio.')
        opt['iterations_per_epoch'] = len(loader)
        return result

    return create_train_val_dataloader


def _allow_processes_without_gpu() -> None:
    """Let ``torchrun ... --launcher pytorch`` work on CPUs: BasicSR 1.4.2 asks for NCCL and divides by the number of GPUs."""
    import torch
    if torch.cuda.is_available():
        return
    from basicsr.utils import dist_util

    def init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        if 'RANK' not in os.environ:
            raise InputError('--launcher pytorch needs torchrun: torchrun --nproc_per_node=N basicsr/train.py -opt ... '
                             '--launcher pytorch.')
        torch.distributed.init_process_group('gloo' if backend == 'nccl' else backend, **kwargs)

    dist_util._init_dist_pytorch = init_dist_pytorch
