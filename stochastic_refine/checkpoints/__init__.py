"""Checkpoints: files and folders of weights, read safely and written atomically."""

from .files import (
    METADATA_KEY,
    Checkpoint,
    check_fit,
    load_weights,
    read_checkpoint,
    remove_leftovers,
    save_safetensors,
    write_metadata,
)

__all__ = [
    'METADATA_KEY', 'Checkpoint', 'check_fit', 'load_weights', 'read_checkpoint',
    'remove_leftovers', 'save_safetensors', 'write_metadata'
]
