"""``stochastic-refine install-into COMFYUI``: a folder of custom nodes, which ComfyUI imports when it starts."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...files import is_sealed, make_folder, sealed, write_text

_FOLDER = 'custom_nodes/stochastic_refine'
_OPENING = '# Put here by `stochastic-refine install-into`. To remove it: stochastic-refine install-into COMFYUI --uninstall'
_NODES = '''"""Nodes of stochastic_refine; and nodes for upscale models can load what integrations.spandrel.save wrote."""
import warnings

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {}, {}
try:
    from stochastic_refine.integrations.spandrel import install
    from stochastic_refine.integrations.spandrel.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    install()
except ModuleNotFoundError as error:
    if error.name != 'stochastic_refine':
        raise
    warnings.warn('stochastic_refine is not installed in this Python, so its nodes are missing here; '
                  f'install it, or delete {__file__}')
'''


def is_comfyui(root: Path) -> bool:
    """Whether ``root`` is a ComfyUI, told by how it finds nodes."""
    nodes = root / 'nodes.py'
    return (root / 'custom_nodes').is_dir() and nodes.is_file() and 'NODE_CLASS_MAPPINGS' in nodes.read_text(errors='replace')


def install_into(root: Path, uninstall: bool = False) -> str:
    """Put the nodes into a ComfyUI, or take them out again.

    Args:
        root: For which :func:`is_comfyui` holds; nothing of it is imported.
        uninstall: Remove exactly what an earlier call put there.

    Returns:
        What was done, in a few lines.

    Raises:
        InputError: If something in the way is not ours, or was changed; nothing is done then.
    """
    file = root / _FOLDER / '__init__.py'
    if file.exists() and not _is_ours(file) or file.parent.exists() and not file.exists():
        raise InputError(f'{file.parent} is not as install-into wrote it, or not from there; move it away and run this again.')
    if uninstall:
        if not file.exists():
            return f'{root} holds no nodes from install-into; nothing was removed.'
        for compiled in (file.parent / '__pycache__').glob('__init__.*.pyc'):
            compiled.unlink()
        file.unlink()
        for folder in (file.parent / '__pycache__', file.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return f'Removed from {root}: {_FOLDER}.'
    content = sealed(_OPENING, _NODES)
    remove = f'Remove with: stochastic-refine install-into {root} --uninstall'
    if file.exists() and file.read_text(encoding='utf-8') == content:
        return f'{root} has the nodes already: {_FOLDER}.\n{remove}'
    make_folder(file.parent)
    write_text(file, content)
    return '\n'.join([
        f'Put into {root}: {_FOLDER}. After its next start ComfyUI has two nodes for deblurring, if its Python has '
        'stochastic_refine.',
        'Its own node for upscale models loads files of stochastic_refine.integrations.spandrel.save, and cuts images into '
        'tiles of 512 pixels, each with other noise: take a mean of samples there. Our nodes cut no seams.', remove])


def _is_ours(file: Path) -> bool:
    return is_sealed(file.read_text(encoding='utf-8', errors='replace'))
