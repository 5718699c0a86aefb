"""What the commands' arguments share. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError

#: Where a command adds its parser.
Commands = argparse._SubParsersAction


def add_pairs(parser: argparse._ActionsContainer, required: bool = False) -> None:
    parser.add_argument('--gt', type=Path, required=required, help='folder of sharp images')
    parser.add_argument('--lq', type=Path, help='folder of blurred images')
    parser.add_argument('--max-images', type=int, help='use so many pairs only, spread evenly')


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--workers', type=int, default=1, help='processes on this machine (default: 1)')
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps (default: auto)')


def check_at_least(args: argparse.Namespace, **least: int) -> None:
    """Refuse whole numbers below ``least``; an argument that is not given, or that the command has not, passes."""
    for key, low in least.items():
        value = getattr(args, key, None)
        if value is not None and value < low:
            raise InputError(f"--{key.replace('_', '-')} must be a whole number from {low}, got {value}.")
