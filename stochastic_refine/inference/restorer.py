"""The one way from a blurred tensor to a restored one: validation, command line and Python all call :class:`Restorer`."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..archs.memory_format import converted
from ..archs.predict_refine_arch import PredictRefineNet, conditioned_denoiser
from ..diffusion import SampleNoise
from ..errors import InputError
from ..processes import local_world_size
from .operating_point import OperatingPoint, check_sampler
from .tiling import UNKNOWN_RADIUS_HALO, TiledNet, WindowedNet, halo_of

#: Share of the free memory that activations of one network call may take.
MEMORY_SHARE = 0.4
#: Bytes of activations per input pixel and channel-equivalent, for networks that do not tell (a generous guess).
UNKNOWN_BYTES_PER_PIXEL = 8192


@dataclass
class Restoration:
    """What came of one image. All tensors are float32 on the network's device, (3, H, W) unless said otherwise.

    Args:
        image: The result, [0, 1]: first sample, mean of the samples, or a deterministic network's output.
        initial: Initial prediction, [0, 1]; None without a predictor.
        samples: (n, 3, H, W), [0, 1]; None unless kept.
        std: Standard deviation over the samples (n - 1 in the denominator); None with fewer than two.
    """

    image: Tensor
    initial: Tensor | None = None
    samples: Tensor | None = None
    std: Tensor | None = None


class Restorer:
    """Restores images with a network.

    Args:
        net: :class:`PredictRefineNet`, or any network that maps (B, 3, H, W) in [0, 1] to the same.
        precision: ``'float32'`` or ``'bfloat16'`` (autocast; the samplers' own arithmetic stays in float32).
        tile: Side of the tiles in pixels, None for the whole image at once, ``'auto'`` to choose by the free memory.
        on_call: Called as ``on_call(done, total)`` after each network call.
        window: Side of the windows that a deterministic network, or the predictor, restores one by one (HINet's published
            test protocol), whatever ``tile`` is; None for the image as a whole. The denoiser always sees the image as a whole.
        compile: Compile the denoiser with ``torch.compile``: minutes at its first call at a size, faster thereafter.
    """

    def __init__(self,
                 net: nn.Module,
                 precision: str = 'float32',
                 tile: int | str | None = 'auto',
                 on_call: Callable[[int, int], None] | None = None,
                 window: int | None = None,
                 compile: bool = False) -> None:
        self.net = net
        self.precision = precision
        self.tile = tile
        self.on_call = on_call
        self.window = window
        self.compile = compile
        self._done = self._total = 0

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    @property
    def tiles_exactly(self) -> bool:
        """Whether tiling changes nothing; False for networks with a global view, whose result it may change."""
        return all(halo_of(part) is not None for part in self._parts())

    def _parts(self) -> list[nn.Module]:
        """The networks that tiles are given to."""
        if not isinstance(self.net, PredictRefineNet):
            return [self.net] if self.window is None else []
        predictor = self.net.predictor if self.window is None else None
        return [part for part in (predictor, self.net.denoiser) if part is not None]

    def restore(self,
                lq: Tensor,
                point: OperatingPoint,
                keep_samples: bool = False,
                initial: Tensor | None = None) -> Restoration:
        """Restore one image.

        Samples are drawn in batches as large as memory allows; mean and standard deviation are accumulated, so memory grows
        with the number of samples only if they are kept.

        Args:
            lq: Blurred image, (3, H, W), [0, 1].
            point: Where on the perception-distortion curve. A deterministic network ignores it.
            keep_samples: Whether to return every sample.
            initial: The initial prediction if it is at hand already, (3, H, W).
        """
        lq = lq[None].to(self.device, torch.float32)
        with self._inference():
            if not isinstance(self.net, PredictRefineNet):
                net = self._prediction_net(self.net, lq)
                self._start(net.calls(*lq.shape[-2:]))
                return Restoration(net(lq).float()[0].clamp(0, 1))
            return self._sample(lq, point, keep_samples, None if initial is None else initial[None])

    def running_means(self,
                      lq: Tensor,
                      point: OperatingPoint,
                      counts: Sequence[int],
                      initial: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Means of the first samples of one image, for several numbers of samples, from one pass over the largest.

        Args:
            lq: Blurred image, (3, H, W), [0, 1].
            point: Where on the perception-distortion curve; its ``num_samples`` and ``average`` do not matter.
            counts: Numbers of samples, each at least 1.
            initial: The initial prediction if it is at hand already, (3, H, W).

        Yields:
            ``(count, image)`` with rising counts; memory does not grow with them. The image is what :meth:`restore` gives for
            the average of so many samples, and for one sample exactly what it gives for that sample.

        Raises:
            InputError: If the network is deterministic.
        """
        if not isinstance(self.net, PredictRefineNet):
            raise InputError(f'{type(self.net).__name__} is deterministic and has no samples to average; restore with it once.')
        counts = sorted(set(counts))
        point = replace(point, num_samples=counts[-1])
        lq = lq[None].to(self.device, torch.float32)
        with self._inference():  # left whenever something is yielded, since it would else hold in the caller's code too
            batches = self._batches(lq, point, ends=counts)
            _, draw = self._drawing(lq, point, batches, None if initial is None else initial[None])
            mean, count = torch.zeros_like(lq[0]), 0
        for seeds in batches:
            with self._inference():
                for sample in draw(seeds):
                    count += 1
                    mean += (sample - mean) / count
                image = mean.clone()
            if count in counts:
                yield count, image

    def predict(self, lq: Tensor) -> Tensor | None:
        """The initial prediction of one image, (3, H, W), or None if the network has no predictor."""
        if not isinstance(self.net, PredictRefineNet) or self.net.predictor is None:
            return None
        lq = lq[None].to(self.device, torch.float32)
        with self._inference():
            net = self._prediction_net(self.net.predictor, lq)
            self._start(net.calls(*lq.shape[-2:]))
            return net(lq).float()[0]

    def _sample(self, lq: Tensor, point: OperatingPoint, keep_samples: bool, initial: Tensor | None) -> Restoration:
        batches = self._batches(lq, point)
        initial, draw = self._drawing(lq, point, batches, initial)
        kept, first, count = [], None, 0
        several = point.num_samples > 1  # one sample is its own mean, and a large photo is not held twice more
        mean, squares = (torch.zeros_like(lq[0]), torch.zeros_like(lq[0])) if several else (None, None)
        for seeds in batches:
            samples = draw(seeds)
            first = samples[0] if first is None else first
            for sample in samples if several else ():  # Welford's update
                count += 1
                delta = sample - mean
                mean += delta / count
                squares += delta * (sample - mean)
            if keep_samples:
                kept.append(samples)
        return Restoration(
            image=mean if several and point.average else first,
            initial=None if initial is None else initial[0].clamp(0, 1),
            samples=torch.cat(kept) if kept else None,
            std=(squares / (count - 1)).sqrt() if several else None)

    def _batches(self, lq: Tensor, point: OperatingPoint, ends: Sequence[int] = ()) -> list[range]:
        """The seeds of each batch of samples: as large as memory allows, with a batch that ends at each of ``ends``."""
        size = self._batch(lq, point.num_samples)
        edges = sorted({0, point.num_samples, *ends})
        return [point.seeds[i:min(i + size, stop)] for start, stop in zip(edges, edges[1:]) for i in range(start, stop, size)]

    def _drawing(self, lq: Tensor, point: OperatingPoint, batches: Sequence[range],
                 initial: Tensor | None) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        """The initial prediction, (1, 3, H, W), and what draws the samples of a batch, (B, 3, H, W), [0, 1]."""
        size = lq.shape[-2:]
        denoiser = self._tiled(self._sampling_net(self.net.denoiser), lq, max(map(len, batches)))
        check_sampler(self.net, point)
        schedule = point.schedule
        calls = denoiser.calls(*size) * point.calls * len(batches)
        if initial is None and self.net.predictor is not None:
            predictor = self._prediction_net(self.net.predictor, lq)
            self._start(calls + predictor.calls(*size))
            initial = predictor(lq).float()
        else:
            self._start(calls)
        initial = None if initial is None else initial.contiguous()  # the noise's layout: one for all is faster

        # Feature maps are kept of images that fit as a whole: those of all tiles would grow with the image.
        denoise = conditioned_denoiser(
            denoiser.net, self.net.conditioning(lq, initial), schedule, call=denoiser, share=denoiser.calls(*size) == 1,
            added=self.net.added)

        def draw(seeds: range) -> Tensor:
            noise = SampleNoise(seeds, lq.shape[1:], lq.device)
            return self.net.sample(lq, initial, schedule, noise, denoise, sampler=point.sampler, clamp=point.clamp,
                                   **point.sampler_options).clamp_(0, 1)

        return initial, draw

    def _start(self, total: int) -> None:
        self._done, self._total = 0, total

    def _advance(self) -> None:
        self._done += 1
        if self.on_call is not None:
            self.on_call(self._done, self._total)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        training = self.net.training
        self.net.eval()
        try:
            with torch.inference_mode(), torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.precision == 'bfloat16'):
                yield
        finally:
            self.net.train(training)

    def _sampling_net(self, denoiser: nn.Module) -> nn.Module:
        """The denoiser as the samplers call it: compiled if asked for, its weights in the precision where that is safe.

        Autocast else converts them at every call. Only networks that prepare for sampling are known to compute the same then.
        """
        if self.precision == 'bfloat16' and hasattr(denoiser, 'prepare_denoising'):
            denoiser = converted(denoiser, torch.bfloat16)
        if self.compile:
            denoiser = copy.copy(denoiser)  # the caller's stays as it is
            denoiser.compile()
        return denoiser

    def _prediction_net(self, part: nn.Module, lq: Tensor) -> TiledNet | WindowedNet:
        """What calls a part that is deterministic."""
        return self._tiled(part, lq, 1) if self.window is None else WindowedNet(part, self.window, self._advance)

    def _tiled(self, part: nn.Module, lq: Tensor, batch: int) -> TiledNet:
        tile = self.tile
        if tile == 'auto':
            pixels = _free_memory(self.device) * MEMORY_SHARE / (_bytes_per_pixel(part) * batch)
            if lq.shape[-2] * lq.shape[-1] <= pixels:
                tile = None
            else:
                tile = max(int(pixels**0.5) - 2 * (halo_of(part) or UNKNOWN_RADIUS_HALO), 128)
        return TiledNet(part, tile, self._advance)

    def _batch(self, lq: Tensor, num_samples: int) -> int:
        """How many samples of this image to draw at once."""
        pixels = _free_memory(self.device) * MEMORY_SHARE / _bytes_per_pixel(self.net.denoiser)
        # On a CPU a batch gains nothing once an image keeps the cores busy.
        limit = 8 if self.device.type == 'cpu' else 32
        budget = min(pixels, 2**18 if self.device.type == 'cpu' else pixels)
        return max(1, min(num_samples, limit, int(budget / (lq.shape[-2] * lq.shape[-1]))))


def _bytes_per_pixel(part: nn.Module) -> int:
    return getattr(part, 'activation_bytes_per_pixel', UNKNOWN_BYTES_PER_PIXEL)


def _free_memory(device: torch.device) -> int:
    """Free bytes on the device for this process, as far as the system tells; on a CPU at most 8 GiB, to leave others room."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] // math.ceil(local_world_size() / torch.cuda.device_count())
    try:
        return min(os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // local_world_size(), 8 * 2**30)
    except (ValueError, OSError, AttributeError):  # not told on this system
        return 4 * 2**30
