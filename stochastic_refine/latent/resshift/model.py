"""ResShiftModel: trains ResShift, in its later version with a perceptual loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..model import LatentModel


class ResShiftModel(LatentModel):
    """LatentModel for :class:`~stochastic_refine.latent.resshift.ResShift`.

    Keys of ``train:``, besides LatentModel's:
        image_opt: A loss between the image of the predicted latent, which is not quantised so that a gradient comes through,
            and the sharp one; the journal's is LPIPS, the conference's version has none.

    Overridden: the losses. Inherited: everything else.
    """

    @classmethod
    def losses_of(cls, opt: dict[str, Any]) -> Mapping[str, str]:
        image = (opt.get('train') or {}).get('image_opt') or {}
        return {**super().losses_of(opt), **({'image': image['type']} if image else {})}

    def losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            prediction, target = self.net_g(lq, gt=gt)['latent']
            losses = {'l_latent': self.criteria['latent'](prediction.float(), target)}
            if 'image' in self.criteria:
                image = self.get_bare_model(self.net_g).decode(prediction, quantise=False)
                losses['l_image'] = self.criteria['image'](image[..., :gt.shape[-2], :gt.shape[-1]].float(), gt)
        return losses
