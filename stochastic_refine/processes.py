"""Work shared by processes: a pool on this machine, or the processes that torchrun started on several."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tqdm import tqdm

from .errors import InputError

Item = TypeVar('Item')


def run_parallel(function: Callable[[Item], Any], items: Sequence[Item], workers: int, description: str,
                 unit: str = 'image') -> list[Any]:
    """Results of ``function`` in the order of ``items``, with a progress bar; the first error or Ctrl-C stops the rest.

    If a process is killed, the others do all the rest, but for the item it was at.

    Args:
        function: Can be pickled; with one worker it is called in this process.
        items: What to call it with.
        workers: Processes. Each gets its share of PyTorch's threads, unless the environment sets ``OMP_NUM_THREADS``, and is
            told its number as torchrun tells it, by ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE``.
        description, unit: For the progress bar.

    Raises:
        InputError: If a process was killed.
    """
    # Closed before an error is printed, which would else begin in the middle of the bar's line.
    with tqdm(total=len(items), desc=description, unit=unit, disable=rank() > 0) as bar:
        if workers == 1 or len(items) < 2:
            return list(_counted(map(function, items), bar))
        results = _in_workers(function, items, min(workers, len(items)), bar)
    if len(results) < len(items):
        raise InputError(f'{len(items) - len(results)} of {len(items)} {unit}s are not done, as a worker process ended '
                         'unexpectedly, probably for want of memory; run the same command again with fewer workers.')
    return [results[i] for i in range(len(items))]


def _counted(results: Iterable[Any], bar: tqdm) -> Iterator[Any]:
    for result in results:
        bar.update()
        yield result


def _in_workers(function: Callable[[Item], Any], items: Sequence[Item], workers: int, bar: tqdm) -> dict[int, Any]:
    """Results by position; those are missing whose process was killed. Each worker is a pool of its own, since the death of one
    process is the end of its whole pool."""
    pools = [ProcessPoolExecutor(1, get_context('spawn'), initializer=_start_worker, initargs=(number, workers))
             for number in range(workers)]
    left, running, results = deque(enumerate(items)), {}, {}

    def hand_out(pool: ProcessPoolExecutor) -> None:
        if left:
            i, item = left[0]
            running[pool.submit(function, item)] = i, pool
            left.popleft()

    try:
        for pool in pools:
            hand_out(pool)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                i, pool = running.pop(future)
                with suppress(BrokenProcessPool):  # raised by a killed process's item, and by its pool ever after
                    results[i] = future.result()
                    bar.update()
                    hand_out(pool)
    finally:
        for pool in pools:
            pool.shutdown()
    return results


def _start_worker(number: int, workers: int) -> None:
    # On Ctrl-C every process of the terminal gets the signal; workers finish their item, so that nothing is half-written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // workers)))  # PyTorch reads it when loaded
    os.environ.setdefault('LOCAL_RANK', str(number))
    os.environ['LOCAL_WORLD_SIZE'] = str(local_world_size() * workers)
    threading.Thread(target=_end_with, args=(parent_process(), ), daemon=True).start()


def _end_with(process: BaseProcess) -> None:
    """A worker whose parent was killed would else wait for its next item for ever."""
    process.join()
    os._exit(1)


def rank() -> int:
    """This process's number among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get('RANK', 0))


def world_size() -> int:
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get('WORLD_SIZE', 1))


def local_world_size() -> int:
    """Processes on this machine that share the work: torchrun's, or the workers of :func:`run_parallel`; 1 without either."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1))


def torchrun_command(count: int | str, program: str) -> str:
    """How a training or test, by ``program`` with its options file, is started on so many GPUs: one process for each."""
    return f'torchrun --nproc_per_node={count} {program} --launcher pytorch'


def refuse_several_gpus(opt: Mapping[str, Any]) -> None:
    """Refuse parsed options that want several GPUs in one process.

    BasicSR would multiply the batch by their number and share it out by DataParallel, on each GPU with the same random numbers.

    Raises:
        InputError: Naming the command that starts one process for each.
    """
    if not opt.get('dist') and opt.get('num_gpu') not in ('auto', None) and opt['num_gpu'] > 1:
        program = f"basicsr/{'train' if opt['is_train'] else 'test'}.py -opt FILE"
        raise InputError(f"num_gpu: one process computes on one GPU, not on {opt['num_gpu']}; start one for each by "
                         f"'{torchrun_command(opt['num_gpu'], program)}', or set num_gpu: auto, which uses one.")


def my_share(items: Sequence[Item]) -> Sequence[Item]:
    """Every ``world_size``-th item, beginning with the ``rank``-th: together the processes have each item once."""
    return items[rank()::world_size()]


def wait_for_all() -> None:
    """Return when every process that torchrun started has got here."""
    if world_size() == 1:
        return
    import torch.distributed as dist
    if not dist.is_initialized():  # gloo serves on CPUs and GPUs, and no tensors are exchanged
        dist.init_process_group('gloo', timeout=timedelta(days=7))
    dist.barrier()
