"""Whether mmengine is here, and of a version that this package has been tried with."""

from __future__ import annotations

from importlib import metadata

from ...errors import InputError

#: The first that has all that is used here.
LEAST = (0, 10, 4)


def check_mmengine() -> None:
    """Raise an InputError that says what to install if mmengine is missing or too old."""
    least = '.'.join(map(str, LEAST))
    versions = [metadata.version(name) for name in ('mmengine', 'mmengine-lite') if _is_installed(name)]
    if not versions:
        raise InputError("Training by OpenMMLab's runner needs mmengine, which is not installed; run: pip install "
                         "'stochastic_refine[mmengine]'")
    if tuple(int(part) for part in versions[0].split('.')[:3] if part.isdigit()) < LEAST:
        raise InputError(f"mmengine {versions[0]} is too old; version {least} or later is needed: pip install "
                         "'stochastic_refine[mmengine]'")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
