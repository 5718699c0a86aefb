"""SamplingModel: what all models of networks that sample have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..archs.build import check_arch_options
from ..archs.sampling import Rules, rules_of
from ..errors import InputError
from ..inference.operating_point import operating_points_of
from .restoration_model import RestorationModel


class SamplingModel(RestorationModel):
    """Validates a network that samples at operating points, and writes them into its checkpoints.

    ``val:`` holds one operating point, scored as ``sample``, or several under ``operating_points: {name: {...}}``. All are
    validated in one pass, with the initial prediction, computed once, beside them as ``initial`` if there is one.

    Overridden: the named results, the metadata. Inherited: everything else.
    """

    #: The initial prediction where the data set holds it, (B, 3, H, W).
    initial: Tensor | None = None

    def __init__(self, opt: dict[str, Any]) -> None:
        self.operating_points = operating_points_of(opt.get('val') or {}, self.rules(opt))
        super().__init__(opt)

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        cls.check_operating_points(opt)
        super().check_options(opt)

    @classmethod
    def rules(cls, opt: dict[str, Any]) -> Rules:
        """The rules of the network; an InputError if it is deterministic."""
        check_arch_options(opt['network_g'], 'network_g')
        rules = rules_of(opt['network_g'])
        if rules is None:
            raise InputError(f"network_g: {opt['network_g']['type']} is deterministic, and model_type {cls.__name__} is for "
                             'networks that sample; choose RestorationModel.')
        return rules

    @classmethod
    def check_operating_points(cls, opt: dict[str, Any]) -> None:
        """Raise an InputError at the first operating point that is none of the network's."""
        rules = cls.rules(opt)
        for name, point in operating_points_of(opt.get('val') or {}, rules).items():
            rules.check(point, f'val: {name}')

    def checkpoint_metadata(self, net_label: str = 'net_g') -> dict[str, Any]:
        points = {name: point.as_options() for name, point in self.operating_points.items()}
        return {**super().checkpoint_metadata(net_label), 'operating_points': points}

    def restorations(self) -> dict[str, Tensor]:
        restorer = self.restorer()
        initial = restorer.predict(self.lq[0]) if self.initial is None else self.initial[0]
        results = {} if initial is None else {'initial': initial[None].clamp(0, 1)}
        for name, point in self.operating_points.items():
            results[name] = restorer.restore(self.lq[0], point, initial=initial).image[None]
        return results
