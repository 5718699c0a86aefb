"""Losses with BasicSR's names and arguments."""
