"""``stochastic-refine doctor``: what a bug report needs."""

from __future__ import annotations

import argparse

from .arguments import Commands


def add_doctor(commands: Commands) -> None:
    commands.add_parser('doctor', help='print what a bug report needs').set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from .doctor_report import doctor_report
    print(doctor_report())
