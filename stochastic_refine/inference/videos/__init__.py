"""Videos: frame by frame with one seed, everything but the pictures as it was. PyAV (``.[video]``) is imported when used."""

from .restoring import is_video, restore_videos

__all__ = ['is_video', 'restore_videos']
