"""Loops over folders of photos."""
