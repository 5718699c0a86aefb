"""The one way from a blurred tensor to a restored one: validation, command line and Python all call :class:`Restorer`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..archs.memory_format import converted
from ..archs.sampling import Part, SamplingNetwork
from ..errors import InputError
from .memory import SMALL, bytes_per_pixel, total_memory
from .operating_point import OperatingPoint
from .tiling import BlendedNet, TiledNet, WindowedNet, halo_of

#: Share of the device's memory that one network call of an image cut by ``auto`` may take, and that any call may.
AUTO_SHARE, MOST_SHARE = 0.35, 0.9


@dataclass
class Restoration:
    """What came of one image. All tensors are float32 on the network's device, (3, H, W) unless said otherwise.

    Args:
        image: The result, [0, 1]: first sample, mean of the samples, or a deterministic network's output.
        initial: Initial prediction, [0, 1]; None without a predictor.
        samples: (n, 3, H, W), [0, 1]; None unless kept.
        std: Standard deviation over the samples (n - 1 in the denominator); None with fewer than two.
        tiling: What was cut into tiles whose seams are blended, in words, since the result then differs from that of the whole
            image; None where nothing was, or where tiles are exact.
    """

    image: Tensor
    initial: Tensor | None = None
    samples: Tensor | None = None
    std: Tensor | None = None
    tiling: str | None = None


class Restorer:
    """Restores images with a network.

    Args:
        net: A :class:`~stochastic_refine.archs.sampling.SamplingNetwork`, or any network that maps (B, 3, H, W) in [0, 1] to
            the same.
        precision: ``'float32'`` or ``'bfloat16'`` (autocast; the samplers' own arithmetic stays in float32).
        tile: Side of the tiles in pixels, None for the whole image at once, ``'auto'`` to cut what does not fit into the
            device's memory. Tiles of networks that see a limited neighbourhood are exact; of others they overlap and are
            blended, and the restoration says so.
        on_call: Called as ``on_call(done, total)`` after each network call.
        window: Side of the windows that a deterministic network, or the predictor, restores one by one (HINet's published
            test protocol), whatever ``tile`` is; None for the image as a whole. The denoiser always sees the image as a whole.
        compile: Compile the denoiser with ``torch.compile``: minutes at its first call at a size, faster thereafter.
    """

    def __init__(self,
                 net: nn.Module,
                 precision: str = 'float32',
                 tile: int | str | None = None,
                 on_call: Callable[[int, int], object] | None = None,
                 window: int | None = None,
                 compile: bool = False) -> None:
        self.net = net
        self.precision = precision
        self.tile = tile
        self.on_call = on_call
        self.window = window
        self.compile = compile
        self._done = self._total = 0
        self._blended: dict[str, None] = {}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

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
        self._blended.clear()
        with self._inference():
            if not isinstance(self.net, SamplingNetwork):
                net = self.predicting(Part(self.net), lq)
                self.start(net.calls(*lq.shape[-2:]))
                restored = Restoration(net(lq).float()[0].clamp(0, 1))
            else:
                restored = self._sample(lq, point, keep_samples, None if initial is None else initial[None])
        restored.tiling = '; '.join(self._blended) or None
        self._check_finite(restored.image)
        return restored

    def _check_finite(self, image: Tensor) -> None:
        """Raise an InputError at NaN or infinity, which else would become black pixels and a score."""
        if not bool(image.isfinite().all()):
            raise InputError(f'{type(self.net).__name__} makes values that are not finite of this image (NaN or infinity); the '
                             'weights are broken, or their precision or operating point does not suit them.')

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
        if not isinstance(self.net, SamplingNetwork):
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
                self._check_finite(image)
            if count in counts:
                yield count, image

    def predict(self, lq: Tensor) -> Tensor | None:
        """The initial prediction of one image, (3, H, W), or None if the network has no predictor."""
        if not isinstance(self.net, SamplingNetwork):
            return None
        with self._inference():
            initial = self.net.predict_initial(lq[None].to(self.device, torch.float32), self)
            if initial is not None:
                self._check_finite(initial)
            return None if initial is None else initial[0]

    def _sample(self, lq: Tensor, point: OperatingPoint, keep_samples: bool, initial: Tensor | None) -> Restoration:
        batches = self._batches(lq, point)
        initial, draw = self._drawing(lq, point, batches, initial)
        kept, first, count = [], None, 0
        several = point.num_samples > 1  # one sample is its own mean, and a large photo is not held twice more
        mean, squares = (torch.zeros_like(lq[0] if several else lq[0, :0]) for _ in range(2))
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
        size = self._batch(lq, point)
        edges = sorted({0, point.num_samples, *ends})
        return [point.seeds[i:min(i + size, stop)] for start, stop in zip(edges, edges[1:]) for i in range(start, stop, size)]

    def _drawing(self, lq: Tensor, point: OperatingPoint, batches: Sequence[range],
                 initial: Tensor | None) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        """The initial prediction, (1, 3, H, W), and what draws the samples of a batch, (B, 3, H, W), [0, 1]."""
        self.net.rules.check(point, 'These weights')
        return self.net.begin(lq, initial, point, batches, self)

    # ---------------------------------------------------------------- what a network that samples asks for (archs.sampling.Run)

    def start(self, calls: int) -> None:
        self._done, self._total = 0, calls

    def advance(self) -> None:
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

    def _sampling_net(self, net: nn.Module) -> nn.Module:
        """The part as samplers call it.

        Autocast else converts the weights at every call. Only networks that prepare for sampling are known to compute the
        same with weights in the lower precision.
        """
        if self.precision == 'bfloat16' and hasattr(net, 'prepare_denoising'):
            net = converted(net, torch.bfloat16)
        if self.compile:
            net = copy.copy(net)  # the caller's stays as it is
            net.compile()
        return net

    def predicting(self, part: Part, lq: Tensor) -> TiledNet | BlendedNet | WindowedNet:
        return self.tiled(part, lq) if self.window is None else WindowedNet(part.net, self.window, self.advance)

    def tiled(self, part: Part, lq: Tensor, batch: int = 1, sampling: bool = False) -> TiledNet | BlendedNet:
        height, width = lq.shape[-2:]
        tile, pixels = self.tile if isinstance(self.tile, int) else None, height * width
        if pixels > SMALL and tile is None:
            need, memory = batch * self._bytes_per_pixel(part), total_memory(self.device)
            if self.tile is None and need * pixels > MOST_SHARE * memory:
                raise InputError(
                    f'An image of {width}x{height} takes about {need * pixels / 2**30:.1f} GiB in {type(part.net).__name__} as '
                    f'a whole, of the {memory / 2**30:.1f} GiB that {self.device} has; give a tile size (tile in val:, '
                    '--tile), or use a larger machine.')
            fitting = int((AUTO_SHARE * memory / need)**0.5)
            if self.tile is not None and pixels > fitting**2:
                tile = max(fitting - 2 * (halo_of(part.net) or 0), 128)
        net = self._sampling_net(part.net) if sampling else part.net
        if halo_of(part.net) is not None or tile is None or tile >= max(height, width):
            return TiledNet(net, tile, self.advance)
        if part.scale > 1:  # in its own pixels, on the grid of its pooling
            multiple = getattr(part.net, 'size_multiple', 1)
            tile = part.scale * max(tile // part.scale // multiple * multiple, multiple)
        self._blended[f'{type(part.net).__name__}, which sees the whole image, in blended tiles of {tile} pixels'] = None
        return BlendedNet(net, tile // part.scale, self.advance)

    def _bytes_per_pixel(self, part: Part) -> float:
        return bytes_per_pixel(part.net, part.channels, part.noise_conditioned, part.inputs) / part.scale**2

    def _batch(self, lq: Tensor, point: OperatingPoint) -> int:
        """How many samples of this image to draw at once."""
        pixels = lq.shape[-2] * lq.shape[-1]
        # On a CPU a batch gains nothing once an image keeps the cores busy.
        most, budget = 8, float(2**18)
        if self.device.type != 'cpu':
            most, budget = 32, AUTO_SHARE * total_memory(self.device) / self._bytes_per_pixel(self.net.parts(point)[-1])
        return max(1, min(point.num_samples, most, int(budget / pixels)))
