"""What the metrics with a network share: how its library and weights are had, where it runs, and with what arithmetic."""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch

from ..errors import InputError, MetricUnavailable

#: Seconds that a server may be silent during a download; without a limit a dead connection hangs the run.
TIMEOUT = 20.0


@contextmanager
def loading(metric: str, install: str, remedy: str) -> Iterator[None]:
    """Within it, a metric's library is imported and its network built; the library may download the weights.

    What the library prints goes to stderr, its warnings are dropped, and torch's random state is put back afterwards, so
    that a training draws the same numbers with the metric as without.

    Args:
        metric: The metric's name, as tables print it.
        install: What to run for a missing package, after ``run: ``.
        remedy: What to do about missing weights, the end of a sentence.

    Raises:
        MetricUnavailable: If the package cannot be imported or the network cannot be loaded, naming the reason.
        InputError: As raised within.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter('ignore')
            yield
    except InputError:
        raise
    except ImportError as error:
        raise MetricUnavailable(f'The metric {metric} needs packages that cannot be imported ({error}); '
                                f'run: {install}.') from error
    except Exception as error:  # libraries fail in many ways without a network, and none may end a training
        reason = f'{type(error).__name__}: {" ".join(str(error).split())}'.rstrip('.')
        raise MetricUnavailable(f'The network of the metric {metric} cannot be loaded ({reason}); {remedy}.') from error
    finally:
        socket.setdefaulttimeout(timeout)


def metric_device() -> torch.device:
    """The process's current GPU where there is one, else the CPU."""
    return torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')


@contextmanager
def scoring() -> Iterator[None]:
    """Inference without TF32, which PyTorch allows in convolutions and which would move a score's fourth digit."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
