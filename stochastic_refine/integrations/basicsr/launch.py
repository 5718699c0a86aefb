"""``train`` and ``test``: BasicSR's own pipelines, with our names registered and the options checked first.

Both ``python basicsr/train.py`` and ``stochastic-refine train`` end here.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from ...data.checked_dataset import CheckedDataset, DrawnDataset
from ...errors import InputError, print_in_any_encoding, refusal_of
from ...processes import torchrun_command, world_size
from ...registration import prepare_basicsr, register_all
from ...settings.command_line import read_command_line
from ...settings.options_file import read_options_file


def main(mode: str, root: str) -> int:
    """Run BasicSR's training or test pipeline on ``sys.argv``.

    Args:
        mode: ``'train'`` or ``'test'``.
        root: Folder that gets ``experiments/``, ``tb_logger/`` and ``results/``.

    Returns:
        Exit code: 0; 2 after a sentence on standard error about unusable input; 130 after Ctrl-C.
    """
    print_in_any_encoding()
    try:
        _pipeline(mode)(root)
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except OSError as error:  # BasicSR makes folders and files of its own
        refusal = refusal_of(error)
        if refusal is None:
            raise
        print(f'Error: {refusal}', file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        remedy = '; continue with --auto_resume from the last checkpoint' if mode == 'train' else ''
        print(stop.args[0] if stop.args else f'Stopped{remedy}.', file=sys.stderr)
        return 130
    _leave_the_others()
    return 0


def _leave_the_others() -> None:
    """End the group of processes: its threads, if they still run while Python goes, can abort a training that is all done."""
    import torch.distributed as dist
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        if 'TORCHELASTIC_RUN_ID' in os.environ:  # torchrun's child, with nothing left to do: no thread outlives this
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        dist.destroy_process_group()


def _pipeline(mode: str) -> Callable[[str], None]:
    """BasicSR's pipeline with what it looks up in its own module replaced where needed."""
    prepare_basicsr()
    logging.raiseExceptions = False  # a log file on a full disk is told about by what else cannot be written
    _allow_processes_without_gpu()
    if mode == 'train':
        import basicsr.train as pipeline

        from ...models.loading_ahead import load_ahead
        _resume_exactly(pipeline)
        load_ahead(pipeline)
        run = pipeline.train_pipeline
    else:
        import basicsr.test as pipeline
        run = pipeline.test_pipeline
    register_all()
    from basicsr.utils import options
    from yaml import SafeLoader
    options.ordered_yaml = lambda: (SafeLoader, None)  # BasicSR's loader would run code that an options file holds
    build_dataset, parse_options, build_model = pipeline.build_dataset, pipeline.parse_options, pipeline.build_model
    pipeline.build_dataset = lambda opt: _build_checked(build_dataset, opt)
    pipeline.build_model = lambda opt: _build_model(build_model, opt)
    pipeline.parse_options = lambda *args, **kwargs: _parse_and_check(parse_options, *args, **kwargs)
    return run


def _parse_and_check(parse_options: Callable[..., Any], root: str, is_train: bool) -> Any:
    from ...settings.check import check_options, check_options_file, misplaced_keys, unused_keys
    from ...settings.published import adapt_published
    check_options_file(sys.argv)
    _check_launcher(sys.argv)
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
    if not opt['dist'] and _asked('num_gpu') == 'auto':
        opt['num_gpu'] = min(opt['num_gpu'], 1)  # BasicSR has put the number of all GPUs there
    differing = adapt_published(opt)
    check_options(opt)
    if opt['rank'] == 0:
        for words in (*differing, *misplaced_keys(opt), *unused_keys(opt)):
            print(f'Note: {words}', file=sys.stderr)
    if opt['dist']:  # without manual_seed in the file each process drew one of its own
        import torch.distributed as dist
        seed = [opt['manual_seed']]
        dist.broadcast_object_list(seed)
        opt['manual_seed'] = seed[0]
    for dataset in opt['datasets'].values():
        dataset.setdefault('scale', 1)  # BasicSR comes from super-resolution
    return opt, args


def _check_launcher(argv: list[str]) -> None:
    """Check that a launcher is named if, and only if, it has started this process."""
    launcher = read_command_line(argv).launcher
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise InputError(f"--launcher pytorch needs torchrun: {torchrun_command('N', _program(argv))}")
    if launcher in (None, 'none') and world_size() > 1:  # each would train by itself, over the same files
        raise InputError(f'torchrun has started {world_size()} processes, which know nothing of each other without --launcher '
                         'pytorch; add it.')


def _asked(key: str) -> Any:
    """A value at the top of the options as it was written, before BasicSR's parser filled in or replaced it; None if absent."""
    line = read_command_line(sys.argv)
    return dict(line.forced).get(key, read_options_file(line.options_file).get(key))


def _build_model(build: Callable[..., Any], opt: dict[str, Any]) -> Any:
    """BasicSR's ``build_model`` after a line in the log on GPUs that this process leaves idle."""
    import torch
    from basicsr.utils import get_root_logger
    count = torch.cuda.device_count()
    if count > 1 and opt['num_gpu'] and not opt['dist']:
        get_root_logger().info(f'This process uses one of {count} GPUs; all of them with one process each: '
                               f'{torchrun_command(count, _program(sys.argv))}')
    return build(opt)


def _program(argv: list[str]) -> str:
    """What torchrun is to run for this command line."""
    program = argv[0].replace('stochastic-refine', '-m stochastic_refine.cli')
    return f'{program} -opt {read_command_line(argv).options_file}'


class _PipelineDataset(DrawnDataset):
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


def _resume_exactly(pipeline: ModuleType) -> None:
    """Make BasicSR's training pipeline resume with the very batch that would have come next.

    BasicSR begins the interrupted epoch anew. Besides, the loader refuses a data set smaller than a batch, tells the model how
    long an epoch is, and keeps Ctrl-C from its workers.
    """
    from ...data.resumable_sampler import ResumableSampler
    from ...models.training_state import load_resume_state
    state: dict[str, Any] = {}
    create = pipeline.create_train_val_dataloader

    def load_state(opt: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal state
        state = load_resume_state(opt) or {}
        asked = _asked('manual_seed')
        if asked is not None and str(asked) != str(opt['manual_seed']) and opt['rank'] == 0:
            print(f"Note: manual_seed {asked} is not taken over: a resumed training keeps the seed {opt['manual_seed']} that "
                  'it began with.', file=sys.stderr)
        if state and state['iter'] >= opt['train']['total_iter'] and opt['rank'] == 0:
            print(f"Note: the training has reached iteration {state['iter']} already, so total_iter "
                  f"{opt['train']['total_iter']} leaves nothing to train; raise it to go on.", file=sys.stderr)
        return state or None

    def create_train_val_dataloader(opt: dict[str, Any], logger: Any) -> Any:
        loader, sampler, val_loaders, _, total_iters = create(opt, logger)
        length = len(loader)
        if length == 0:
            raise InputError(f"datasets: train has {len(loader.dataset)} images, fewer than one batch of "
                             f"{opt['datasets']['train']['batch_size_per_gpu']} on each of {opt['world_size']} processes; "
                             'lower batch_size_per_gpu or raise dataset_enlarge_ratio.')
        opt['iterations_per_epoch'] = length
        loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)
        sampler.seed = opt['manual_seed']
        if state:
            state['epoch'] = (state['iter'] - 1) // length  # the loader may be another than when the state was saved
            sampler.resume(state['epoch'], (state['iter'] - state['epoch'] * length) * loader.batch_sampler.batch_size)
        # BasicSR counts batches that are not full, which its loader leaves out: the training would end too early
        return loader, sampler, val_loaders, math.ceil(total_iters / length), total_iters

    pipeline.load_resume_state = load_state
    pipeline.create_train_val_dataloader = create_train_val_dataloader
    pipeline.EnlargedSampler = ResumableSampler


def _allow_processes_without_gpu() -> None:
    """Let ``torchrun ... --launcher pytorch`` work on CPUs: BasicSR 1.4.2 asks for NCCL and divides by the number of GPUs."""
    import torch
    if torch.cuda.is_available():
        return
    from basicsr.utils import dist_util

    def init_dist_pytorch(backend: str, **kwargs: Any) -> None:
        torch.distributed.init_process_group('gloo' if backend == 'nccl' else backend, **kwargs)

    dist_util._init_dist_pytorch = init_dist_pytorch
