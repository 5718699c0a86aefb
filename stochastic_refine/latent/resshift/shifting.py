"""The diffusion of ResShift: a Markov chain from a sharp latent x0 to a blurred one y, with noise around it.

    q(x_t | x0, y) = N(x0 + eta_t (y - x0), kappa^2 eta_t),    t = 1 ... T,

where eta rises from nearly 0 to nearly 1. Here t counts from 0, as the network is told it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shifting:
    """The schedule, sqrt(eta_t) = s (e / s)^((t / (T - 1))^power) with s = min(m / kappa, m), and what follows from it.

    Args:
        steps: T, at least 2.
        min_noise_level: m, the standard deviation of the least noise if kappa is at least 1.
        etas_end: e, the last sqrt(eta).
        power: How much of the way is gone by the first steps: all at once for 0, evenly for 1.
        kappa: Noise at the blurred end.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 4
    min_noise_level: float = 0.2
    etas_end: float = 0.99
    power: float = 0.3
    kappa: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f'steps must be at least 2, got {self.steps}.')
        if not (self.kappa > 0 and self.power > 0):
            raise ValueError(f'kappa and power must be above 0, got {self.kappa} and {self.power}.')
        if not 0 < self._start < self.etas_end <= 1:
            raise ValueError(f'etas_end must lie above {self._start:g}, where min_noise_level and kappa put the start, and not '
                             f'above 1; got {self.etas_end}.')

    @property
    def _start(self) -> float:
        return min(self.min_noise_level / self.kappa, self.min_noise_level)

    @property
    def sqrt_etas(self) -> Tensor:
        """sqrt(eta_t), (T,), float64, rising."""
        way = torch.linspace(0, 1, self.steps, dtype=torch.float64, device='cpu')**self.power
        return self._start * (self.etas_end / self._start)**way

    @property
    def etas(self) -> Tensor:
        """eta_t, (T,), float64, rising."""
        return self.sqrt_etas**2

    def shifted(self, x0: Tensor, y: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of (B, C, H, W) at steps t, (B,): ``x0 + eta_t (y - x0) + kappa sqrt(eta_t) noise``."""
        eta, root = (table[t.cpu()].to(x0).view(-1, 1, 1, 1) for table in (self.etas, self.sqrt_etas))
        return x0 + eta * (y - x0) + self.kappa * root * noise

    def start(self, y: Tensor, noise: Tensor) -> Tensor:
        """Where sampling starts: x_T, of whose sharp part next to nothing is left."""
        return y + self.kappa * self.sqrt_etas[-1].item() * noise

    def scaled(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t as the network sees it, ``x_t / sqrt(kappa^2 eta_t + 1)``: of about unit variance at all steps t, (B,)."""
        scale = (self.kappa**2 * self.etas[t.cpu()] + 1).rsqrt()
        return x_t * scale.to(x_t).view(-1, 1, 1, 1)

    def posterior(self, t: int) -> tuple[float, float, float]:
        """``q(x_{t-1} | x_t, x0) = N(c_t x_t + c_0 x0, variance)``: ``(c_t, c_0, variance)``; the variance is 0 for t = 0."""
        etas = self.etas.tolist()
        eta, before = etas[t], etas[t - 1] if t else 0.0
        return before / eta, (eta - before) / eta, self.kappa**2 * before * (eta - before) / eta

    def sample(self, predict: Callable[[Tensor, int], Tensor], y: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """Walk back from the blurred latent to a sharp one; the last step adds no noise.

        Args:
            predict: Gives x0, like x_t, of the scaled x_t and t.
            y: The blurred latent, (B or 1, C, H, W).
            noise: Source of all noise, (B, C, H, W).
        """
        x_t = self.start(y, noise())
        for t in reversed(range(self.steps)):
            c_t, c_0, variance = self.posterior(t)
            x0 = predict(self.scaled(x_t, torch.tensor([t])), t)
            x_t = c_t * x_t + c_0 * x0
            if t:
                x_t = x_t + variance**0.5 * noise()
        return x_t
