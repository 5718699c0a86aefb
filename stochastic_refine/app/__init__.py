"""A page on this machine with the knob, before and after, and where the model is unsure (an extra: ``.[app]``).

Served by gradio to 127.0.0.1 alone; photos stay on this machine, and what was uploaded or made is removed at the end.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .machine import Machine


def serve(port: int = 7860, weights: str = 'small', device: str = 'auto', max_megapixels: float = 24.0,
          browser: bool = False) -> None:
    """Serve the page until Ctrl-C, or a signal to end.

    Args:
        port: Of 127.0.0.1.
        weights: Name or file of the weights that the page begins with.
        device: As of :class:`~stochastic_refine.inference.deblurrer.Deblurrer`.
        max_megapixels: Larger photos are refused with a sentence.
        browser: Open the page in the browser.

    Raises:
        InputError: If gradio is missing, the port is taken, or the weights cannot be used.
    """
    if importlib.util.find_spec('gradio') is None:
        raise InputError("The package gradio is not installed; run: pip install 'stochastic_refine[app]'.")
    check_port(port)
    machine = Machine(device, weights)
    machine.load(weights)
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix='stochastic-refine-', ignore_cleanup_errors=True) as folder:
        # Read when gradio is imported, and for each upload
        os.environ.update(GRADIO_ANALYTICS_ENABLED='False', GRADIO_TEMP_DIR=folder)
        from .page import build, launch
        blocks = build(machine, Path(folder), max_megapixels)  # gradio copies files from elsewhere, when our handlers are done
        print(f'The page is at {launch(blocks, port, browser)} (Ctrl-C ends it).', flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal was closed
                print('The page is closed.', flush=True)
        finally:
            blocks.close(verbose=False)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let what asks a process to end, or the end of its terminal, be Ctrl-C, so that nothing is left behind."""

    def end(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # while it ends
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ('SIGTERM', 'SIGHUP') if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers
              if signal.getsignal(number) != signal.SIG_IGN}  # as under nohup
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_port(port: int) -> None:
    """Check that a port of this machine can be listened on.

    Raises:
        InputError: If it is none, taken, or not for everyone.
    """
    if not 1 <= port <= 65535:
        raise InputError(f'--port must be a number from 1 to 65535, got {port}.')
    with socket.socket() as trial:
        if os.name == 'posix':  # one that was left a minute ago is free; elsewhere this would take a used one
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(('127.0.0.1', port))
        except OSError as error:
            raise InputError(f'Port {port} cannot be used ({error.strerror}); choose another one: --port '
                             f'{port + 1 if port < 65535 else port - 1}.') from error
