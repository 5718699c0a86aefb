"""Checkpoints: files and folders of weights, read safely and written atomically."""

from .files import (
    METADATA_KEY,
    Checkpoint,
    check_fit,
    check_writable,
    load_weights,
    make_folder,
    read_checkpoint,
    remove_leftovers,
    save_safetensors,
    write_atomically,
    write_metadata,
)

__all__ = [
    'METADATA_KEY', 'Checkpoint', 'check_fit', 'check_writable', 'load_weights', 'make_folder', 'read_checkpoint',
    'remove_leftovers', 'save_safetensors', 'write_atomically', 'write_metadata'
]
