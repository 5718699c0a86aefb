"""Restoring images with trained networks: one path for validation, command line and Python."""
