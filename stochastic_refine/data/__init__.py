"""Datasets for BasicSR's loaders, and the preparation of downloaded ones."""
