"""Systems that diffuse latents: one folder each, on the base that they share.

Importing this room lists every system's networks, and importing ``archs`` imports it.
So modules that hold networks import at their top nothing that is above ``archs``. ``diffusers`` and ``transformers``, an extra,
are imported only when a network is built.
"""

from __future__ import annotations

import importlib
import pkgutil

for _system in pkgutil.iter_modules(__path__):
    if _system.ispkg:
        importlib.import_module(f'.{_system.name}', __name__)
