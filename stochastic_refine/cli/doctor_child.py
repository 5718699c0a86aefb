"""What ``doctor`` asks in a process of its own, since importing a broken package may kill the process that tries."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_CHILD_SECONDS = 180
_REPORT = '@doctor'  # marks the child's own lines among whatever packages print while they are imported


def import_errors(modules: Sequence[str]) -> dict[str, str]:
    """Import each module in a child process: ``{module: error on one line, or ''}``.

    A module that crashes or hangs its child is reported so, and a fresh child goes on with those behind it.
    """
    errors: dict[str, str] = {}
    while waiting := [module for module in modules if module not in errors]:
        lines, ending = in_child(_try_imports, *waiting)
        errors |= dict(lines)
        if len(lines) < len(waiting):
            errors[waiting[len(lines)]] = f'its import {ending}'
    return errors


def in_child(function: Callable[..., None], *arguments: str) -> tuple[list[tuple[str, str]], str]:
    """Run a function of this module in a child that has this process's import path.

    Returns:
        The (name, text) lines it sent by :func:`_send`, and how the child ended.
    """
    code = ('import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); '
            'getattr(importlib.import_module(sys.argv[2]), sys.argv[3])(*sys.argv[4:])')
    path = json.dumps([*sys.path, str(Path(__file__).resolve().parents[2])])
    try:
        child = subprocess.run([sys.executable, '-c', code, path, __name__, function.__name__, *arguments],
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHILD_SECONDS)
        output, ending = child.stdout, f'ended the process (exit code {child.returncode})'
    except subprocess.TimeoutExpired as error:
        output, ending = error.stdout or b'', f'took more than {_CHILD_SECONDS} s'
    lines = [line.split('\t') for line in output.decode(errors='replace').splitlines()]
    return [(line[1], line[2]) for line in lines if len(line) == 3 and line[0] == _REPORT], ending


def _send(name: str, text: str) -> None:
    """Child: report one line; the line break before it ends whatever a package left unfinished."""
    sys.stdout.write(f'\n{_REPORT}\t{name}\t{" ".join(text.split())}\n')
    sys.stdout.flush()


def one_line(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), '')
    return f'{type(error).__name__}: {first[:160]}'


def _try_imports(*modules: str) -> None:
    """Child: import each module and report how it went."""
    for module in modules:
        try:
            if module == 'basicsr':
                from ..registration import prepare_basicsr
                prepare_basicsr()
            importlib.import_module(module)
        except BaseException as error:  # a package may also call sys.exit while it is imported
            _send(module, one_line(error))
        else:
            _send(module, '')


def ask_hardware() -> None:
    """Child: report threads, GPUs and which of them have bfloat16."""
    import torch
    capability = torch.backends.cpu.get_cpu_capability()
    flags = getattr(torch.cpu, 'get_capabilities', dict)()
    native = [flag for flag in ('amx_bf16', 'avx512_bf16', 'bf16') if flags.get(flag)]
    _send('CPU', f'{torch.get_num_threads()} threads, {capability}, bf16 {"native" if native else "emulated (slow)"}')
    if not torch.cuda.is_available():
        build = torch.version.cuda or torch.version.hip
        why = f'torch is built for {build}, but no driver or device is found' if build else 'a CPU build of torch'
        _send('CUDA', f'none ({why})')
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            free, total = torch.cuda.mem_get_info(i)
            major, minor = torch.cuda.get_device_capability(i)
            with torch.cuda.device(i):
                bf16 = 'yes' if torch.cuda.is_bf16_supported(including_emulation=False) else 'no'
            _send(f'cuda:{i}', f'{torch.cuda.get_device_name(i)}, {total / 2**30:.1f} GiB ({free / 2**30:.1f} free), '
                               f'capability {major}.{minor}, bf16 {bf16}')
        except Exception as error:  # e.g. one GPU of several is lost or full
            _send(f'cuda:{i}', one_line(error))
    _send('MPS', 'yes' if torch.backends.mps.is_available() else 'none')
