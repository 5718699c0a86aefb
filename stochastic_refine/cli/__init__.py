"""The command line, one file per command; importing it loads nothing heavy."""

from .main import main

__all__ = ['main']
