"""LatentNet: what every network on Stable Diffusion has in common; it is restored with, scored and trained like all others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..archs.predict_refine_arch import final_output
from ..archs.sampling import NATIVE, Part, Rules, Run
from ..diffusion import NoiseSchedule, SampleNoise, ancestral, forward_marginal, r0_from_eps, to_signed
from .base_weights import SD21, Version, shared_base
from .images import low_frequencies, match_colours
from .sharing import SharingNet
from .stable_diffusion import SCALE, Decoder, Encoder, StableDiffusion, configs, pad_to

#: Latent channels.
_CHANNELS = 4


class LatentNet(SharingNet):
    """A network that draws samples by denoising latents of Stable Diffusion, seeing the blurred image's latent.

    A system is a subclass that builds its trained parts in its constructor and ends with :meth:`complete`, to which it gives
    the module that denoises: ``denoiser(x, t, context)``, x (B, C, h, w) with the noisy latent first and the blurred image
    after it (:attr:`seen_as`), t (B,), context (1 or B, 77, C), gives the predicted noise, (B, 4, h, w). It trains by
    :meth:`targets`.

    Args:
        base: Stable Diffusion's weights: a diffusers folder, a single file, or a repository of a hub that is on this machine.
            They stay frozen, are shared by all networks that use them and are in no checkpoint. None: the network has a base of
            its own, which is in its checkpoint, as in the authors' files.
        base_size: Of a base of its own, where it differs from the published one: arguments of
            :func:`~stochastic_refine.latent.stable_diffusion.configs`.
        base_precision: Of the base's weights, which are cast once.
        attention_window: Side of the windows of a feature map within which its pixels attend to each other; None for all.
        attention_slicing: Compute attention one head after the other.
        vae_tiling: Encode and decode images of more than 512 pixels in overlapping tiles, as is done anyway where the memory
            does not suffice or tiles are asked for; the blurred image's latent is then the mode, not a draw.
        gradient_checkpointing: Compute activations again in the backward pass.
    """

    #: The Stable Diffusion that it is built on.
    version: ClassVar[Version] = SD21
    #: Steps from no noise to noise alone, in training.
    schedule: ClassVar[NoiseSchedule] = NoiseSchedule.scaled_linear(1000, 0.00085, 0.012)
    #: How the denoiser sees the blurred image: as a draw from its latent, that latent's mode, (B, 4, h, w), or its pixels, one
    #: channel for each of those that make a latent one, (B, 192, h, w).
    seen_as: ClassVar[Literal['draw', 'mode', 'pixels']] = 'draw'
    #: Values of an operating point's ``start``; the first is meant where it says nothing.
    starts: ClassVar[tuple[str, ...]] = ('noise', 'low_frequencies')
    #: Steps of its sampler where an operating point does not say.
    default_steps: ClassVar[int] = 50
    #: What the denoiser's output says of the latent, given the noisy one and alpha-bar.
    r0_from = staticmethod(r0_from_eps)
    #: Image sides are padded with zeros to a multiple of this.
    multiple: ClassVar[int] = 64
    #: Names of the pairs that :meth:`forward` gives a training, each with the loss that is published for it.
    losses: ClassVar[Mapping[str, str]] = {'noise': 'MSELoss'}

    def __init__(self,
                 base: str | None = None,
                 base_size: Mapping[str, Any] | None = None,
                 base_precision: Literal['float32', 'bfloat16'] = 'float32',
                 attention_window: int | None = None,
                 attention_slicing: bool = False,
                 vae_tiling: bool = False,
                 gradient_checkpointing: bool = False) -> None:
        super().__init__()
        if base is not None and base_size is not None:
            raise ValueError('base_size describes a base of its own, and base names one; give one of them.')
        self.rules = self.rules_of({})
        self.vae_tiling = vae_tiling
        self.savings = {'attention_window': attention_window, 'attention_slicing': attention_slicing,
                        'gradient_checkpointing': gradient_checkpointing}
        self.first: nn.Module | None = None  # a network that restores the image before its latent is seen
        dtype = getattr(torch, base_precision)
        if base is None:
            own = StableDiffusion(configs(**{**self.version.size, **(base_size or {})})).to(dtype)
            self.base = own.economise(vae_tiling=vae_tiling, **self.savings)
        else:
            self.share(base=shared_base(base, self.version, dtype, vae_tiling=vae_tiling, **self.savings))

    def __init_subclass__(cls, **options: Any) -> None:
        """A constructor's ``**base`` stands for this class's arguments, and says so: options are checked by signatures."""
        super().__init_subclass__(**options)
        own, inherited = (inspect.signature(each.__init__).parameters for each in (cls, LatentNet))
        arguments = {name: argument for name, argument in own.items() if argument.kind is not argument.VAR_KEYWORD}
        if len(arguments) < len(own):
            arguments |= {name: argument.replace(kind=argument.KEYWORD_ONLY) for name, argument in inherited.items()
                          if name not in arguments}
            cls.__init__.__signature__ = inspect.Signature(arguments.values())
            cls.__init__.__annotations__ = {**get_type_hints(LatentNet.__init__), **cls.__init__.__annotations__}

    def complete(self, denoiser: nn.Module) -> None:
        """Set what denoises, reads and makes images: modules that hold the network's parts and are no parts themselves."""
        self.__dict__.update(_denoiser=denoiser, _encoder=Encoder(self.base.vae), _decoder=Decoder(self.base.vae))

    # ---------------------------------------------------------------- sampling, by the restorer (:mod:`..archs.sampling`)

    @classmethod
    def rules_of(cls, options: Mapping[str, Any]) -> Rules:
        return Rules('the network diffuses latents by the steps it was trained with', (NATIVE, ),
                     {'sampler': NATIVE, 'steps': cls.default_steps}, guided=True, starts=cls.starts,
                     most_steps=cls.schedule.steps)

    @property
    def has_initial(self) -> bool:
        return self.first is not None

    def trial(self, lq: Tensor) -> list[Tensor]:
        initial = [] if self.first is None else [self._restored_first(lq)]
        image = pad_to(lq, self.multiple)
        latent = self._encoder(image)[:, :_CHANNELS]
        seen = F.pixel_unshuffle(image, SCALE) if self.seen_as == 'pixels' else latent
        noise = self._denoiser(torch.cat([latent, seen], dim=1), latent.new_ones(1), self.base.context('', lq.device))
        return [self._decoder(noise)[..., :lq.shape[-2], :lq.shape[-1]], *initial]

    @property
    def _first(self) -> list[Part]:
        return [] if self.first is None else [Part(self.first, per_image=True)]

    def parts(self, point: Any) -> list[Part]:
        channels = _CHANNELS + (3 * SCALE**2 if self.seen_as == 'pixels' else _CHANNELS)

        def inputs(height: int, width: int, device: torch.device | str) -> tuple[Tensor, ...]:
            side = self.multiple // SCALE
            height, width = height + -height % side, width + -width % side
            context = torch.zeros(1, 77, self.base.unet.config.cross_attention_dim, device=device)
            return torch.zeros(1, channels, height, width, device=device), torch.ones(1, device=device), context

        return [*self._first, Part(self._encoder, per_image=True), Part(self._decoder, _CHANNELS, scale=SCALE),
                Part(self._denoiser, channels, noise_conditioned=True, calls=point.calls, scale=SCALE, inputs=inputs)]

    def predict_initial(self, lq: Tensor, run: Run) -> Tensor | None:
        if self.first is None:
            return None
        first = run.predicting(self._first[0], lq)
        run.start(first.calls(*lq.shape[-2:]))
        return first(lq).float()

    def begin(self, lq: Tensor, initial: Tensor | None, point: Any, batches: Sequence[range],
              run: Run) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        """A seed's noise is, in this order, that of the blurred latent, that to start with, and that of each step."""
        padded = pad_to(lq, self.multiple)
        size = tuple(side // SCALE for side in padded.shape[-2:])
        *_, encoder, decoder, part = self.parts(point)
        denoiser = run.tiled(part, padded, max(map(len, batches)), sampling=True)
        tiling = self.vae_tiling or any(run.tiled(end, padded).calls(*(side // end.scale for side in padded.shape[-2:])) > 1
                                        for end in (encoder, decoder))
        first = [run.predicting(each, lq) for each in self._first if initial is None]
        start = self.start_image(lq, point)
        run.start(sum(each.calls(*lq.shape[-2:]) for each in first) + (self.seen_as != 'pixels') + (start is not None)
                  + len(batches) * (point.calls * denoiser.calls(*size) + 1))

        def encode(image: Tensor) -> Tensor:
            with self._vae_in_tiles(tiling):
                moments = self._encoder(image)
            run.advance()
            return moments

        for each in first:
            initial = each(lq).float()
        blurred = self._read(pad_to(self.seen(lq, initial), self.multiple), encode)
        if start is not None:
            image, alpha_bar = start
            latent = self._factor * encode(to_signed(pad_to(image, self.multiple)))[:, :_CHANNELS]
        context = self.base.context(point.prompt or '', lq.device)
        unguided = self.base.context(point.negative_prompt or '', lq.device) if point.is_guided else None

        def draw(seeds: range) -> Tensor:
            noise = SampleNoise(seeds, (_CHANNELS, *size), lq.device)
            seen = self._condition(blurred, noise(), tiling)

            def denoise(z: Tensor, step: float) -> Tensor:
                t = torch.full((len(z), ), float(step), device=z.device)
                told = denoiser([z, seen], t, context)
                if unguided is None:
                    return told
                untold = denoiser([z, seen], t, unguided)
                return untold + point.guidance_scale * (told - untold)

            state = noise()
            if start is not None:
                state = forward_marginal(latent, state, alpha_bar)
            latents = self.sample(denoise, state, point.steps, noise)
            with self._vae_in_tiles(tiling):
                image = self._decoder(latents)[..., :lq.shape[-2], :lq.shape[-1]]
            run.advance()
            return self.finished((image + 1) / 2, lq if initial is None else initial).clamp_(0, 1)

        return initial, draw

    def seen(self, lq: Tensor, initial: Tensor | None) -> Tensor:
        """What is read of the blurred image, (B, 3, H, W), [0, 1], and of the first network's prediction: DeblurDiff's authors
        give the autoencoder the image itself, although it was trained for [-1, 1], in which it reads sharp images."""
        return lq

    def start_image(self, lq: Tensor, point: Any) -> tuple[Tensor, float] | None:
        """The image, (1, 3, H, W), [0, 1], whose latent is under the noise that sampling starts with, and the alpha-bar of
        both; None for noise alone."""
        if point.start == 'low_frequencies':
            return low_frequencies(lq), self.schedule.alpha_bars[-1].item()
        return None

    def sample(self, denoise: Callable[[Tensor, float], Tensor], state: Tensor, steps: int, noise: SampleNoise) -> Tensor:
        """The latents, (B, 4, h, w), that come of what sampling starts with, by calls of ``denoise(latents, step)``."""
        schedule, chosen = self.schedule.spaced(steps)
        step_of = dict(zip(schedule.levels, chosen))
        return ancestral(lambda z, level: denoise(z, step_of[level]), state, schedule, noise, r0_from=self.r0_from)

    def finished(self, image: Tensor, like: Tensor) -> Tensor:
        """The restored image, (B, 3, H, W), about [0, 1], with the colours of the first network's or the blurred one, (1, 3, H,
        W)."""
        return match_colours(image, like)

    # ---------------------------------------------------------------- training

    def forward(self, lq: Tensor, gt: Tensor | None = None) -> Tensor | dict[str, tuple[Tensor, Tensor]]:
        """Restore ``lq``, or with ``gt`` return what losses need.

        Args:
            lq: Blurred image, (B, 3, H, W), [0, 1].
            gt: Sharp image like ``lq``, H and W multiples of 8; given in training only.

        Returns:
            Without ``gt`` one sample like ``lq``, the same at each call. With it a prediction and its target for each of
            :attr:`losses`, at one random step per image.
        """
        if gt is None:
            from ..inference.operating_point import default_point
            from ..inference.restorer import Restorer
            restorer, point = Restorer(self), default_point(self)
            return torch.stack([restorer.restore(image, point).image for image in lq]).clone()
        with torch.no_grad():
            initial = None if self.first is None else self._restored_first(lq)
            sharp = self._encoder(to_signed(gt))
            sharp = self._latent(sharp, torch.randn_like(sharp[:, :_CHANNELS]), self.vae_tiling)
            blurred = self._condition(self._read(self.seen(lq, initial), self._encoder), torch.randn_like(sharp),
                                      self.vae_tiling)
            context = self.base.context('', lq.device)
        t = torch.randint(self.schedule.steps, (len(lq), ), device='cpu')
        noise = torch.randn_like(sharp)
        noisy = forward_marginal(sharp, noise, self.alpha_bars(t, sharp))
        return self.targets(noisy, blurred, sharp, noise, t.to(sharp.device), context)

    def alpha_bars(self, t: Tensor, like: Tensor) -> Tensor:
        """alpha-bar at steps, (B,), as a factor on ``like``, (B, C, h, w)."""
        return self.schedule.alpha_bars[t.cpu()].view(-1, 1, 1, 1).to(like.device)

    def _restored_first(self, lq: Tensor) -> Tensor:
        return final_output(self.first, self.first(lq)).float()

    def targets(self, noisy: Tensor, blurred: Tensor, sharp: Tensor, noise: Tensor, t: Tensor,
                context: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Predictions and their targets, by name, in a state of training.

        Args:
            noisy, sharp, noise: Latents, (B, 4, h, w), scaled.
            blurred: As the denoiser sees it, see :attr:`seen_as`.
            t: Steps, (B,).
            context: The text's tokens, (1, 77, C).
        """
        return {'noise': (self._denoiser(torch.cat([noisy, blurred], dim=1), t, context), noise)}

    @property
    def _factor(self) -> float:
        return self.base.vae.config.scaling_factor

    @contextmanager
    def _vae_in_tiles(self, tiling: bool) -> Iterator[None]:
        vae = self.base.vae
        before, vae.use_tiling = vae.use_tiling, tiling
        try:
            yield
        finally:
            vae.use_tiling = before

    def _read(self, image: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """What is computed once of an image, (B, 3, H, W)."""
        return F.pixel_unshuffle(image, SCALE) if self.seen_as == 'pixels' else encode(image)

    def _condition(self, read: Tensor, noise: Tensor, mode: bool) -> Tensor:
        """What the denoiser sees, (B, C, h, w), of what :meth:`_read` gave, (B or 1, ., h, w)."""
        if self.seen_as == 'pixels':
            return read.expand(len(noise), -1, -1, -1)
        return self._latent(read, noise, mode or self.seen_as == 'mode')

    def _latent(self, moments: Tensor, noise: Tensor, mode: bool) -> Tensor:
        """A draw, or the mode, (B, 4, h, w), scaled, of what the encoder says of an image, (B or 1, 8, h, w)."""
        mean, logvar = moments.chunk(2, dim=1)
        if mode:
            return (self._factor * mean).expand_as(noise)
        return self._factor * (mean + (0.5 * logvar).exp() * noise)
