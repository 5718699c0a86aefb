"""What a network that samples tells whoever restores with it: the one door for our pair and for every other system.

A network with these methods is restored, scored, swept, averaged, seeded and tiled by the same code as all others; nothing
outside its own file or folder knows its name. A network without them is deterministic: ``net(lq)`` restores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Part(NamedTuple):
    """A network inside a network that samples, as one of its calls sees it.

    Args:
        net: The part.
        channels: Channels of its input.
        noise_conditioned: Whether it is called as ``net(x, noise_level)``, with noise_level (B,).
        calls: Calls per sample at an operating point; 1 for what is computed once per image.
        per_image: Whether it is computed once per image, not once per sample.
        scale: Its input has 1 / scale of the image's sides (8 for the latents of Stable Diffusion).
    """

    net: nn.Module
    channels: int = 3
    noise_conditioned: bool = False
    calls: int = 1
    per_image: bool = False
    scale: int = 1


class Run(Protocol):
    """What the restorer gives to a network: calls of parts that mind memory, tiles and progress."""

    def tiled(self, part: Part, lq: Tensor, batch: int = 1, sampling: bool = False) -> Any:
        """What calls a part on an image, in tiles where it must: ``called(x, *args)`` and ``called.calls(height, width)``.

        With ``sampling`` the part, ``called.net``, is as samplers call it many times: in the precision asked for where that is
        safe, and compiled if asked for.
        """

    def predicting(self, part: Part, lq: Tensor) -> Any:
        """The same for a part that gives the initial prediction, which a protocol of testing may cut into windows."""

    def start(self, calls: int) -> None:
        """Say how many network calls the whole restoration takes, before the first."""

    def advance(self) -> None:
        """Say that a call has been made that went past :meth:`tiled`."""


@runtime_checkable
class SamplingNetwork(Protocol):
    """A network that draws samples."""

    @property
    def has_initial(self) -> bool:
        """Whether an initial prediction comes before the samples."""

    def check_point(self, point: Any, where: str) -> None:
        """Check that an operating point is one of this network's; ``where`` it stands begins the message.

        Raises:
            InputError: If a setting means nothing here, or a value cannot be.
        """

    def default_point(self) -> dict[str, Any]:
        """Options of the operating point that a checkpoint without any is run at."""

    def parts(self, point: Any) -> Sequence[Part]:
        """The networks that a restoration at this point calls; the last one draws the samples."""

    def predict_initial(self, lq: Tensor, run: Run) -> Tensor | None:
        """The initial prediction of an image, (1, 3, H, W), or None."""

    def begin(self, lq: Tensor, initial: Tensor | None, point: Any, batches: Sequence[range],
              run: Run) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        """Compute once what all samples of an image share.

        Args:
            lq: Blurred image, (1, 3, H, W), [0, 1], on the network's device.
            initial: The initial prediction if it is at hand already, (1, 3, H, W).
            point: The operating point.
            batches: The seeds of each batch of samples that will be drawn.
            run: See :class:`Run`.

        Returns:
            The initial prediction or None, and what draws the samples of a batch of seeds, (B, 3, H, W), [0, 1]. A sample
            depends on its seed alone, not on the batch it is drawn in.
        """
