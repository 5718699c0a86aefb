"""Photos in and out: files, PIL images, arrays and tensors become RGB in [0, 1] and go back as they came."""

from ...data.image_files import FORMATS
from .finding import find_photos, search_photos
from .photo import Photo
from .reading import read_photo
from .writing import not_kept, write_photo

__all__ = ['FORMATS', 'Photo', 'find_photos', 'not_kept', 'read_photo', 'search_photos', 'write_photo']
