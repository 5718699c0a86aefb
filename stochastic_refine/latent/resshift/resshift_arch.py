"""ResShift: "Efficient Diffusion Model for Image Super-resolution by Residual Shifting" (Yue et al., NeurIPS 2023, TPAMI 2024).

Provenance: written from the papers and from facts about the published implementation (zsyOAOA/ResShift, commit 3ce1d81): names
and shapes, epsilon, schedule, the mask of shifted windows. The released U-Net and autoencoder load strictly. There is no
published configuration for deblurring; what had to be decided for images that keep their size is said in :class:`ResShift`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.build import arch, build_arch, plan_arch
from ...archs.padding import reflect_pad_to_multiple
from ...archs.pretrained import read_weights
from ...archs.sampling import Part, Rules, Run
from ...checkpoints import check_fit
from ...diffusion import SampleNoise, to_signed
from ...errors import InputError
from ..sharing import SharingNet, is_planned
from .shifting import Shifting

_ADVICE = ('fetch autoencoder_vq_f4.pth, which the authors publish beside their weights (github.com/zsyOAOA/ResShift), and '
           'name it in network_g: base')
_shared: WeakValueDictionary[tuple[Any, ...], nn.Module] = WeakValueDictionary()


class _Encoder(nn.Module):
    """The autoencoder's way in, as a network that can be counted and measured."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: Tensor) -> Tensor:
        return self.autoencoder.encode(image)


class _Decoder(_Encoder):
    """Its way out."""

    def forward(self, z: Tensor) -> Tensor:
        return self.autoencoder.decode(z)


def shared_autoencoder(path: str, precision: torch.dtype) -> nn.Module:
    """The autoencoder of a file, frozen; the same one for all networks that name it. On the meta device it has no weights.

    Raises:
        InputError: If the file is missing, or holds something else; before anything is built.
    """
    planned = is_planned()
    key = (path, precision, planned)
    found = _shared.get(key)
    if found is None:
        try:
            checkpoint = read_weights(path)
        except InputError as error:
            raise InputError(f'The base model {path} cannot be used ({error}); {_ADVICE}.') from error
        options = checkpoint.metadata.get('network') or {}
        if options.get('type') != 'ResShiftVQ':
            check_fit(plan_arch({'type': 'ResShiftVQ'}), checkpoint.params, f'The base model {path}')
        found = build_arch(options, 'base')
        if not planned:
            found.load_state_dict(checkpoint.params)
        found = _shared[key] = found.to(precision).requires_grad_(False).eval()
    return found


@arch
class ResShift(SharingNet):
    """Draws a sharp latent by shifting the blurred one towards it in a few steps.

    Args:
        unet: Options of the U-Net, a :class:`~.unet.ResShiftUNet`; the published one by default.
        base: File of the VQ autoencoder's weights. It stays frozen, is shared by all networks that name it, and is in no
            checkpoint. None: the network has one of its own, which is in its checkpoint.
        base_size: Of an autoencoder of its own: arguments of :class:`~.vq.ResShiftVQ`.
        base_precision: Of its weights, which are cast once.
        steps, min_noise_level, etas_end, power, kappa: Of :class:`~.shifting.Shifting`; published are 4 steps with 0.2 (the
            journal's) and 15 with 0.04 (the conference's). A network restores in as many steps as it was trained for.

    Ours, since published are only networks that enlarge: the U-Net sees the blurred image at the latents' size, shrunk with
    antialiasing, where theirs sees the small image itself. So it has the published names and shapes.

    Shape:
        (B, 3, H, W), [0, 1], any H and W, to the same; padded inside by reflection so that the U-Net's windows fit.
    """

    #: What :meth:`forward` gives a training, with the published loss.
    losses: ClassVar[Mapping[str, str]] = {'latent': 'MSELoss'}

    def __init__(self,
                 unet: Mapping[str, Any] | None = None,
                 base: str | None = None,
                 base_size: Mapping[str, Any] | None = None,
                 base_precision: Literal['float32', 'bfloat16'] = 'float32',
                 steps: int = 4,
                 min_noise_level: float = 0.2,
                 etas_end: float = 0.99,
                 power: float = 0.3,
                 kappa: float = 2.0) -> None:
        super().__init__()
        if base is not None and base_size is not None:
            raise ValueError('base_size describes an autoencoder of its own, and base names one; give one of them.')
        self.shifting = Shifting(steps, min_noise_level, etas_end, power, kappa)
        self.rules = Rules.native(steps)
        self.unet = build_arch({'type': 'ResShiftUNet', **(unet or {})}, 'unet')
        if base is None:
            self.base = build_arch({'type': 'ResShiftVQ', **(base_size or {})}, 'base').requires_grad_(False)
            self.base.to(getattr(torch, base_precision))
        else:
            self.share(base=shared_autoencoder(base, getattr(torch, base_precision)))
        self.multiple = self.base.factor * self.unet.size_multiple
        self.__dict__.update(_encoder=_Encoder(self.base), _decoder=_Decoder(self.base))

    def train(self, mode: bool = True) -> ResShift:
        super().train(mode)
        self.base.eval()
        return self

    # ---------------------------------------------------------------- the parts

    def encode(self, image: Tensor) -> Tensor:
        """The latent of an image, (B, 3, H, W), [0, 1], whose sides fit the U-Net; float32."""
        return self._encoder(to_signed(image).to(next(self.base.parameters()).dtype)).float()

    def shrunk(self, lq: Tensor) -> Tensor:
        """The blurred image as the U-Net sees it: in [-1, 1], at the latents' size."""
        size = [side // self.base.factor for side in lq.shape[-2:]]
        return to_signed(F.interpolate(lq, size=size, mode='bicubic', antialias=True, align_corners=False).clamp(0, 1))

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        """The image of a latent, [0, 1] up to overshoot; for a gradient to the latent it must not be quantised."""
        return (self.base.decode(z.to(next(self.base.parameters()).dtype), quantise).float() + 1) / 2

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | dict[str, tuple[Tensor, Tensor]]:
        """Restore ``lq``, or with ``gt`` return what losses need.

        Args:
            lq: Blurred image, (B, 3, H, W), [0, 1].
            gt: Sharp image like ``lq``; given in training only.

        Returns:
            Without ``gt`` one sample like ``lq``, the same at each call. With it ``{'latent': (prediction, target)}``, the
            sharp latent as it is predicted at one random step per image.
        """
        if gt is None:
            noise = SampleNoise([0] * len(lq), self._latent_shape(lq), lq.device)
            return self._sample(lq, noise, self.unet)
        padded, gt = (reflect_pad_to_multiple(image, self.multiple) for image in (lq, gt))
        with torch.no_grad():
            y, x0 = self.encode(padded), self.encode(gt)
        t = torch.randint(self.shifting.steps, (len(lq), ), device='cpu')
        x_t = self.shifting.shifted(x0, y, torch.randn_like(x0), t)
        return {'latent': (self.unet(self.shifting.scaled(x_t, t), t.to(lq.device), self.shrunk(padded)), x0)}

    def _latent_shape(self, lq: Tensor) -> tuple[int, ...]:
        return (self.base.latent_channels, *(-(-side // self.multiple) * self.unet.size_multiple for side in lq.shape[-2:]))

    def _sample(self, lq: Tensor, noise: SampleNoise, unet: Callable[..., Tensor], y: Tensor | None = None) -> Tensor:
        padded = reflect_pad_to_multiple(lq, self.multiple)
        y, seen = self.encode(padded) if y is None else y, self.shrunk(padded)

        def predict(x_t: Tensor, t: int) -> Tensor:
            step = torch.full((len(x_t), ), t, device=x_t.device)
            return unet(torch.cat([x_t, seen.expand(len(x_t), -1, -1, -1)], dim=1), step).float()

        return self.decode(self.shifting.sample(predict, y, noise))[..., :lq.shape[-2], :lq.shape[-1]]

    # ---------------------------------------------------------------- sampling, by the restorer (:mod:`...archs.sampling`)

    @classmethod
    def rules_of(cls, options: Mapping[str, Any]) -> Rules:
        return Rules.native(options.get('steps', 4))

    @property
    def has_initial(self) -> bool:
        return False

    def trial(self, lq: Tensor) -> list[Tensor]:
        padded = reflect_pad_to_multiple(lq, self.multiple)
        z = self.unet(self.encode(padded), torch.zeros(1, device=lq.device), self.shrunk(padded))
        return [self.decode(z)[..., :lq.shape[-2], :lq.shape[-1]]]

    def parts(self, point: Any) -> list[Part]:
        channels, factor = self.base.latent_channels, self.base.factor
        return [
            Part(self._encoder, per_image=True),
            Part(self._decoder, channels, scale=factor),
            Part(self.unet, channels + 3, noise_conditioned=True, calls=point.calls, scale=factor),
        ]

    def predict_initial(self, lq: Tensor, run: Run) -> Tensor | None:
        return None

    def begin(self, lq: Tensor, initial: Tensor | None, point: Any, batches: Sequence[range],
              run: Run) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        padded = reflect_pad_to_multiple(lq, self.multiple)
        shape = self._latent_shape(lq)
        unet = run.tiled(self.parts(point)[-1], padded, max(map(len, batches)), sampling=True)
        run.start(1 + len(batches) * (point.calls * unet.calls(*shape[1:]) + 1))
        y = self.encode(padded)
        run.advance()

        def draw(seeds: range) -> Tensor:
            image = self._sample(lq, SampleNoise(seeds, shape, lq.device), unet, y)
            run.advance()
            return image.clamp(0, 1)

        return None, draw
