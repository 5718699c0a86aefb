"""Batches loaded one ahead, so that lost data end a training after a whole iteration, saved, on all processes the same one.

BasicSR loads a batch when it is wanted. A process whose data have vanished would then end within an iteration that the others
have begun, with all that was trained since the last checkpoint.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher

from ..errors import InputError
from .restoration_model import RestorationModel


def load_ahead(pipeline: ModuleType) -> None:
    """Replace the prefetchers of BasicSR's training pipeline."""
    build_model = pipeline.build_model

    def build(opt: dict[str, Any]) -> Any:
        model = build_model(opt)
        if isinstance(model, RestorationModel):
            pipeline.CPUPrefetcher = type('CPUPrefetcher', (_Stopping, _Ahead), {'model': model})
            pipeline.CUDAPrefetcher = type('CUDAPrefetcher', (_Stopping, CUDAPrefetcher), {'model': model})
        return model

    pipeline.build_model = build


class _Ahead(CPUPrefetcher):
    """CPUPrefetcher that has the next batch at hand, as CUDAPrefetcher does."""

    batch: dict[str, Any] | None = None

    def preload(self) -> None:
        self.batch = super().next()

    def next(self) -> dict[str, Any] | None:
        batch = self.batch
        if batch is not None:
            self.preload()
        return batch

    def reset(self) -> None:
        super().reset()
        self.preload()


class _Stopping:
    """Mixin for a prefetcher: what cannot be loaded stops the model at the end of the iteration, or at once between epochs."""

    model: RestorationModel

    def preload(self) -> None:
        try:
            super().preload()
        except InputError as error:
            self.batch, self.model.data_error = None, error

    def reset(self) -> None:
        super().reset()
        self.model.stop_if_agreed()
