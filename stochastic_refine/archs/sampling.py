"""What a network that samples tells whoever restores with it: the one door for our pair and for every other system.

A network with these methods is restored, scored, swept, averaged, seeded and tiled by the same code as all others; nothing
outside its own file or folder knows its name. A network without them is deterministic: ``net(lq)`` restores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..values import shortened
from .build import arch_class

#: The name in an operating point of the sampler that a network brings with it, in place of one of :mod:`..diffusion`.
NATIVE = 'native'


@dataclass(frozen=True)
class Rules:
    """Which operating points mean something to a network that samples.

    Args:
        kind: What the network is, for messages: ``the refiner is a flow``.
        samplers: Those that can draw from it; the first is the default.
        default: Options of the operating point where nothing else is said.
        steps: The only number of steps, of a network trained for so many; None for any.
        guided: Whether it is told what the image shows, so that ``prompt``, ``negative_prompt`` and ``guidance_scale`` mean
            something.
        starts: Values of ``start`` that it knows; none where there is no choice.
        most_steps: Steps that it was trained with, of which a sampler takes some; None for any.
        even_steps: Even steps that it was trained with, of which a sampler takes all, or every second and so on; None for any.
    """

    kind: str
    samplers: tuple[str, ...]
    default: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    guided: bool = False
    starts: tuple[str, ...] = ()
    most_steps: int | None = None
    even_steps: int | None = None

    @classmethod
    def native(cls, steps: int) -> Rules:
        """Of a network with a sampler of its own that was trained for so many steps."""
        return cls('the network has a sampler of its own', (NATIVE, ), {'sampler': NATIVE, 'steps': steps}, steps)

    def check(self, point: Any, where: str) -> None:
        """Check that an operating point is one of this network's; ``where`` it stands begins the message.

        Raises:
            InputError: If a setting means nothing here, or a value cannot be.
        """
        if point.sampler not in self.samplers:
            raise InputError(f'{where}: {self.kind}, from which the sampler {point.sampler} cannot draw; '
                             f"choose {' or '.join(self.samplers)}.")
        if self.steps is not None and point.steps != self.steps:
            raise InputError(f'{where}: steps must be {self.steps}, for which the network was trained, got {point.steps}.')
        if self.most_steps is not None and point.steps > self.most_steps:
            raise InputError(f'{where}: steps must be at most {self.most_steps}, which the network was trained with, got '
                             f'{point.steps}.')
        if self.even_steps is not None and (self.even_steps % point.steps or point.last_time is not None):
            raise InputError(f'{where}: the flow was trained for {self.even_steps} even steps; steps must be that or a divisor '
                             'of it, without last_time.')
        for key in () if self.guided else ('guidance_scale', 'prompt', 'negative_prompt'):
            if getattr(point, key) is not None:
                raise InputError(f'{where}: {key} means nothing to a network that is told no text; leave it out.')
        if point.is_guided and (point.prompt or '') == (point.negative_prompt or ''):
            raise InputError(f'{where}: guidance_scale {point.guidance_scale:g} leads from negative_prompt to prompt, which '
                             'are the same; give a prompt, or leave it out.')
        if point.start is not None and point.start not in self.starts:
            choice = f"choose {' or '.join(self.starts)}" if self.starts else 'it has one start alone; leave it out'
            raise InputError(f'{where}: start {shortened(point.start)} means nothing to this network; {choice}.')


def rules_of(options: Mapping[str, Any]) -> Rules | None:
    """The rules of the network of an option dict, which is not built for it; None for a deterministic one.

    Raises:
        InputError: If no network is called so.
    """
    rules = getattr(arch_class(options['type']), 'rules_of', None)
    return None if rules is None else rules(options)


class Part(NamedTuple):
    """A network inside a network that samples, as one of its calls sees it.

    Args:
        net: The part.
        channels: Channels of its input.
        noise_conditioned: Whether it is called as ``net(x, noise_level)``, with noise_level (B,).
        calls: Calls per sample at an operating point; 1 for what is computed once per image.
        per_image: Whether it is computed once per image, not once per sample.
        scale: Its input has 1 / scale of the image's sides (8 for the latents of Stable Diffusion).
        inputs: Makes what one call is given, of a part that wants more than an image and a level, from height and width of its
            input and a device; what it holds does not matter, only shapes do.
    """

    net: nn.Module
    channels: int = 3
    noise_conditioned: bool = False
    calls: int = 1
    per_image: bool = False
    scale: int = 1
    inputs: Callable[[int, int, torch.device | str], tuple[Tensor, ...]] | None = None

    def example(self, height: int, width: int, device: torch.device | str) -> tuple[Tensor, ...]:
        """What one call is given, for an input of these sides."""
        if self.inputs is not None:
            return self.inputs(height, width, device)
        image = torch.rand(1, self.channels, height, width, device=device)
        return (image, torch.rand(1, device=device)) if self.noise_conditioned else (image, )


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

    rules: Rules

    @classmethod
    def rules_of(cls, options: Mapping[str, Any]) -> Rules:
        """The rules of a network with these constructor arguments."""

    @property
    def has_initial(self) -> bool:
        """Whether an initial prediction comes before the samples."""

    def trial(self, lq: Tensor) -> Sequence[Tensor]:
        """Every part's output once, cheaply: each must be of the shape of ``lq``, (1, 3, H, W), H and W multiples of 32."""

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
