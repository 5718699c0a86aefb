"""What a launcher test runs in: the fork server imports this file once, so that a run costs no imports.

A run of its own process is needed because BasicSR reads ``sys.argv`` and keeps its loggers for good.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import torch

from stochastic_refine.registration import register_all

register_all()
import basicsr.test  # noqa: E402, F401
import basicsr.train  # noqa: E402, F401


def run(argv: list[str], cwd: str, out: str, err: str) -> None:
    """``stochastic-refine ARGV`` in ``cwd``, as the leader of a process group, as a shell would start it."""
    multiprocessing.set_start_method(None, force=True)  # back to the platform's default from the fork server's
    os.setpgrp()
    os.chdir(cwd)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    torch.set_num_threads(1)
    from stochastic_refine.cli import main
    sys.exit(main(argv))
