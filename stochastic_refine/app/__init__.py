"""A page on this machine with the knob, before and after, and where the model is unsure (an extra: ``.[app]``).

Served by gradio to 127.0.0.1 alone; photos stay on this machine, and what was uploaded or made is removed at the end.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
import threading
from pathlib import Path

from ..errors import InputError
from .machine import Machine


def serve(port: int = 7860, weights: str = 'small', device: str = 'auto', max_megapixels: float = 24.0,
          browser: bool = False) -> None:
    """Serve the page until Ctrl-C.

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
    with tempfile.TemporaryDirectory(prefix='stochastic-refine-', ignore_cleanup_errors=True) as folder:
        # Read when gradio is imported, and for each upload
        os.environ.update(GRADIO_ANALYTICS_ENABLED='False', GRADIO_TEMP_DIR=str(Path(folder) / 'uploads'))
        from .page import build, launch
        blocks = build(machine, Path(folder), max_megapixels)
        print(f'The page is at {launch(blocks, port, browser)} (Ctrl-C ends it).', flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print('The page is closed.')
        finally:
            blocks.close(verbose=False)


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
