"""``train`` and ``test``: BasicSR's own pipelines, with our names registered and the options checked first.

Both ``python basicsr/train.py`` and ``stochastic-refine train`` end here.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .data.checked_dataset import CheckedDataset
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
        remedy = '; continue with --auto_resume from the last checkpoint' if mode == 'train' else ''
        print(stop.args[0] if stop.args else f'Stopped{remedy}.', file=sys.stderr)
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
    build_dataset, parse_options = pipeline.build_dataset, pipeline.parse_options
    pipeline.build_dataset = lambda opt: _build_checked(build_dataset, opt)
    pipeline.parse_options = lambda *args, **kwargs: _parse_and_check(parse_options, *args, **kwargs)
    return run


def _parse_and_check(parse_options: Callable[..., Any], root: str, is_train: bool) -> Any:
    from .option_check import check_options, check_options_file
    check_options_file(sys.argv)
    try:
        opt, args = parse_options(root, is_train=is_train)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f'The options file lacks the key {error}, or --force_yml names one that does not exist.') from error
    except (ValueError, TypeError, SyntaxError, NameError) as error:
        if '--force_yml' not in sys.argv:
            raise
        raise InputError(f'--force_yml cannot be applied ({error}); write key=value or block:key=value.') from error
    opt['root_path'] = root
    check_options(opt)
    for dataset in opt['datasets'].values():
        dataset.setdefault('scale', 1)  # BasicSR comes from super-resolution
    return opt, args


class _PipelineDataset(CheckedDataset):
    """Reaches workers that are spawned, not forked, as with ``--launcher pytorch``: they need the compatibility layer first."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return _unpickle_dataset, (pickle.dumps(self.__dict__), )


def _unpickle_dataset(state: bytes) -> _PipelineDataset:
    prepare_basicsr()
    dataset = object.__new__(_PipelineDataset)
    dataset.__dict__.update(pickle.loads(state))
    return dataset


def _build_checked(build: Callable[..., Any], opt: dict[str, Any]) -> CheckedDataset:
    """BasicSR's ``build_dataset`` with errors that name the data set."""
    try:
        dataset = build(opt)
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, AssertionError, OSError) as error:
        raise InputError(f"datasets: {opt['name']}: {opt['type']} cannot be made from these options "
                         f'({type(error).__name__}: {" ".join(str(error).split())}); correct them.') from error
    return _PipelineDataset(dataset)


def _init_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """Start of a loading worker: Ctrl-C, which a terminal sends to every process, is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if init is not None:
        init(worker)


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """BasicSR's function of this name, working without a GPU and from any folder.

    BasicSR 1.4.2 moves the state to CUDA, looks for it relative to the current folder, and does not survive a state cut short
    by a crash. Here the newest state that is whole, with its network, is taken.
    """
    from basicsr.utils import check_resume
    folder = opt['path']['training_states']
    if opt['auto_resume']:
        names = os.listdir(folder) if os.path.isdir(folder) else []
        # other names: temporary files of a process that was killed while it saved
        iterations = [int(name[:-6]) for name in names if name.endswith('.state') and name[:-6].isdigit()]
        candidates = [os.path.join(folder, f'{iteration}.state') for iteration in sorted(iterations, reverse=True)]
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
    """Wrap BasicSR's loader construction: refuse a data set smaller than a batch, tell the model how long an epoch is, and keep
    Ctrl-C from the workers."""

    def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> Any:
        result = create(opt, logger)
        loader = result[0]
        if len(loader) == 0:
            raise InputError(f"datasets: train has {len(loader.dataset)} images, fewer than one batch of "
                             f"{opt['datasets']['train']['batch_size_per_gpu']} on each of {opt['world_size']} processes; "
                             'lower batch_size_per_gpu or raise dataset_enlarge_ratio.')
        opt['iterations_per_epoch'] = len(loader)
        loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)
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
