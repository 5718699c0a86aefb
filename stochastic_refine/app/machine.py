"""What all visitors of the page share: the network that is loaded, and one turn at it after the other."""

from __future__ import annotations

import threading
from pathlib import Path

from ..archs.sampling import SamplingNetwork
from ..checkpoints.weights_folder import available_weights, find_weights
from ..inference.deblurrer import Deblurrer
from ..inference.store import list_weights

#: Tells weights apart that have the same name one after another: file, time and size.
Identity = tuple[str, int, int]


class Machine:
    """Loads weights by name and keeps the last ones.

    Args:
        device: As of :class:`~stochastic_refine.inference.deblurrer.Deblurrer`.
        weights: Name or file of those that the page begins with.
    """

    def __init__(self, device: str = 'auto', weights: str = 'small') -> None:
        self.device = device
        self.first = weights
        #: Held while the network computes.
        self.turn = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: tuple[Identity, Deblurrer] | None = None

    def load(self, weights: str) -> tuple[Identity, Deblurrer]:
        """The deblurrer of weights, and what tells them apart from others of that name.

        Raises:
            InputError: If they are not here (any more) or cannot be used.
        """
        path = find_weights(weights)
        state = path.stat()
        identity = (str(path), state.st_mtime_ns, state.st_size)
        with self._loading:
            if self._loaded is None or self._loaded[0] != identity:
                self._loaded = None  # two networks may not fit beside each other
                self._loaded = identity, Deblurrer.from_pretrained(path, device=self.device)
            return self._loaded

    def weights(self) -> dict[str, str]:
        """Names of weights that are here or known, with a few words on each."""
        named = {row.name: row.name if row.state in ('bundled', 'here') else f'{row.name} (not here yet)'
                 for row in list_weights()}
        return named if self.first in named else {self.first: Path(self.first).name, **named}

    def points(self, weights: str) -> dict[str, str]:
        """The operating points of weights by name, with what each does; none of a deterministic network.

        Raises:
            InputError: See :meth:`load`.
        """
        _, deblurrer = self.load(weights)
        if not isinstance(deblurrer.net, SamplingNetwork):
            return {}
        return {name: point.words for name, point in deblurrer.points.items()}

    def has_path(self, weights: str) -> bool:
        """Whether the weights hold the path of ``restore --tradeoff``."""
        return bool(self.load(weights)[1].tradeoff_points)

    def is_here(self, weights: str) -> bool:
        """Whether the weights are on this machine."""
        return weights in available_weights() or weights == self.first
