"""Flow refinement: from the initial prediction along a straight path to a sharp image.

A rectified flow between residuals (Ohayon et al., "Posterior-Mean Rectified Flow", ICLR 2025), whose network predicts the end
of the path instead of its velocity (Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025):

    z_t = (1 - t) z_0 + t r,    z_0 = s n, n ~ N(0, I),    r = the scaled residual of the sharp image,
    loss |r_hat(z_t, t, y, x_init) - r|^2 / max(1 - t, 0.2)^2,    velocity (r_hat - z_t) / (1 - t).

Sampling walks t from 0 to 1. Its last step ends in a prediction, r_hat, so one step is a second regression, and more steps go
from faithful to vivid. :class:`FlowPath` alone knows state, target, velocity and weight; :class:`FlowSchedule` where a sampler
looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .samplers import Constrain, Denoise

#: The loss counts an error of the velocity, but no more than 1 / this fold near the end of the path.
SHORTEST_REST = 0.2


@dataclass(frozen=True)
class FlowPath:
    """The path from start noise to residual.

    Args:
        start_noise: s, standard deviation of z_0 in units of images in [0, 1].
        residual_scale: Factor on residuals of [-1, 1] images, as in the diffusion.
        calls: Training draws the times of so many even steps alone, which are all that a sampler with as many looks at; None
            for any time. At t = 0 the best prediction does not depend on the noise, a little later it does: a network that
            must tell those times apart lets noise through at the first call.
    """

    start_noise: float = 0.02
    residual_scale: float = 1.0
    calls: int | None = None

    def start(self, noise: Tensor) -> Tensor:
        """z_0 of standard normal noise."""
        return 2 * self.residual_scale * self.start_noise * noise

    def state(self, z_0: Tensor, r: Tensor, t: Tensor | float) -> Tensor:
        """z_t; ``t`` a number or (B, 1, 1, 1)."""
        return (1 - t) * z_0 + t * r

    @staticmethod
    def velocity(z_t: Tensor, r_hat: Tensor, t: Tensor | float) -> Tensor:
        """dz/dt that leads to the predicted end; equals ``r - z_0`` for the true one. ``t`` < 1."""
        return (r_hat - z_t) / (1 - t)

    def weight(self, t: Tensor) -> Tensor:
        """Weight of a squared error of r_hat at time t."""
        return (1 - t).clamp(min=SHORTEST_REST)**-2

    def draw(self, r: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A state at a random time of each residual's path, for training.

        Args:
            r: Scaled residuals, (B, 3, H, W).
            generator: Source of time and noise, on the CPU; None uses PyTorch's global one.

        Returns:
            ``(z_t, t)``: (B, 3, H, W), and (B,), uniform in [0, 1) or among the times of ``calls``, float32.
        """
        t = torch.rand(len(r), generator=generator).to(r.device)
        if self.calls is not None:
            t = (t * self.calls).floor() / self.calls
        noise = torch.randn_like(r) if generator is None else torch.randn(r.shape, generator=generator).to(r)
        return self.state(self.start(noise), r, t[:, None, None, None]), t


@dataclass(frozen=True)
class FlowSchedule:
    """The times at which a sampler looks, rising from 0; the end, t = 1, is implied.

    Raises:
        ValueError: If they do not start at 0, rise, and stay below 1.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.times or self.times[0] != 0 or any(b <= a for a, b in pairwise((*self.times, 1.0))):
            raise ValueError(f'times of a flow must rise from 0 and end below 1, got {self.times}.')

    @classmethod
    def even(cls, steps: int, last_time: float | None = None) -> FlowSchedule:
        """``steps`` times, evenly from 0 to ``last_time``; by default even steps to t = 1, 0, 1/K, ..., (K - 1)/K."""
        if steps < 1:
            raise ValueError(f'a schedule needs at least one step, got {steps}.')
        if steps == 1:
            return cls((0.0, ))
        last_time = (steps - 1) / steps if last_time is None else last_time
        return cls(tuple(last_time * k / (steps - 1) for k in range(steps)))

    @property
    def steps(self) -> int:
        """K."""
        return len(self.times)

    @property
    def levels(self) -> list[float]:
        """What the network is shown, one entry per step."""
        return list(self.times)


def flow_euler(predict: Denoise,
               z_0: Tensor,
               schedule: FlowSchedule,
               noise: Callable[[], Tensor],
               constrain: Constrain | None = None) -> Tensor:
    """Euler steps of dz/dt = (r_hat(z, t) - z) / (1 - t); K calls.

    Args:
        predict: ``predict(z_t, t)`` returns r_hat.
        z_0: Start, (B, C, H, W).
        schedule: Times of the steps.
        noise: Not used; a flow is deterministic given z_0.
        constrain: Applied to each r_hat.
    """
    return _integrate(predict, z_0, schedule.times, constrain, corrected=False)


def flow_heun(predict: Denoise,
              z_0: Tensor,
              schedule: FlowSchedule,
              noise: Callable[[], Tensor],
              constrain: Constrain | None = None) -> Tensor:
    """Heun's second-order steps, the last one Euler's, since the velocity has no value at t = 1; 2 K - 1 calls.

    Args: As of :func:`flow_euler`.
    """
    return _integrate(predict, z_0, schedule.times, constrain, corrected=True)


def _integrate(predict: Denoise, z: Tensor, times: Sequence[float], constrain: Constrain | None, corrected: bool) -> Tensor:
    def end(z: Tensor, t: float) -> Tensor:
        r = predict(z, t)
        return r if constrain is None else constrain(r)

    for t, t_next in pairwise(times):
        velocity = FlowPath.velocity(z, end(z, t), t)
        step = z + (t_next - t) * velocity
        if corrected:
            velocity = (velocity + FlowPath.velocity(step, end(step, t_next), t_next)) / 2
            step = z + (t_next - t) * velocity
        z = step
    return end(z, times[-1])


FLOW_SAMPLERS: dict[str, Callable[..., Tensor]] = {'flow_euler': flow_euler, 'flow_heun': flow_heun}
