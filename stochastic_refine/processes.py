"""Work shared by processes: a pool on this machine, or the processes that torchrun started on several."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

from .errors import InputError

Item = TypeVar('Item')


def run_parallel(function: Callable[[Item], Any], items: Sequence[Item], workers: int, description: str, unit: str = 'image') -> list[Any]:
    """Results of ``function`` in the order of ``items``, with a progress bar; the first error or Ctrl-C stops the rest.

    Args:
        function: Can be pickled; with one worker it is called in this process.
        items: What to call it with.
        workers: Processes. Each gets its share of PyTorch's threads.
        description, unit: For the progress bar.

    Raises:
        InputError: If a process was killed.
    """
    # Closed before an error is printed, which would else begin in the middle of the bar's line.
    with tqdm(total=len(items), desc=description, unit=unit, disable=rank() > 0) as bar:
        if workers == 1 or len(items) < 2:
            return list(_counted(map(function, items), bar))
        executor = ProcessPoolExecutor(min(workers, len(items)), get_context('spawn'), initializer=_start_worker, initargs=(workers, ))
        try:
            return list(_counted(executor.map(function, items), bar))
        except BrokenProcessPool as error:
            raise InputError('A worker process ended unexpectedly, probably for want of memory; run the same command again '
                             'with fewer workers.') from error
        finally:
            executor.shutdown(cancel_futures=True)


def _counted(results: Iterable[Any], bar: tqdm) -> Iterator[Any]:
    for result in results:
        bar.update()
        yield result


def _start_worker(workers: int) -> None:
    # On Ctrl-C every process of the terminal gets the signal; workers finish their item, so that nothing is half-written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // workers)))  # PyTorch reads it when it is loaded


def rank() -> int:
    """This process's number among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get('RANK', 0))


def world_size() -> int:
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get('WORLD_SIZE', 1))


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
