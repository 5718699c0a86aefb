"""Noise schedules: tables of alpha and alpha-bar, and the continuous-level draw used in training.

"Linear" here means that the betas (1 - alpha) are linear in t, not their square roots; those are in "scaled linear".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, repeat

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete noise schedule of T steps, in float64.

    Entry ``i`` of each table belongs to step ``t = i + 1``; ``alpha_bar_0 = 1`` is implied and not stored.

    Args:
        betas: The noise variances ``1 - alpha_t`` added at each step (Eq. 1), shape (T,), each in (0, 1); the last may be 1,
            after which no signal is left.

    Raises:
        ValueError: If ``betas`` is empty, not one-dimensional, or leaves that range.
    """

    betas: Tensor
    # What samplers walk: numbers read off a table while a graph is traced would not be known there.
    alphas_as_floats: list[float] = field(init=False, repr=False, compare=False)
    alpha_bars_as_floats: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = self.betas.to(torch.float64)
        if betas.dim() != 1 or betas.numel() == 0:
            raise ValueError(f'betas must be a non-empty vector, got shape {tuple(betas.shape)}.')
        if not bool((betas > 0).all() & (betas[:-1] < 1).all() & (betas[-1] <= 1)):
            raise ValueError(f'every beta must lie between 0 and 1, and none but the last be 1, got {betas.min():g} to '
                             f'{betas.max():g}.')
        object.__setattr__(self, 'betas', betas)
        object.__setattr__(self, 'alphas_as_floats', self.alphas.tolist())
        object.__setattr__(self, 'alpha_bars_as_floats', self.alpha_bars.tolist())

    @classmethod
    def linear(cls, steps: int, initial_variance: float = 1e-6, final_variance: float = 0.02) -> NoiseSchedule:
        """Betas linear from ``initial_variance`` (t = 1) to ``final_variance`` (t = T), as in the paper's App. F.

        With one step the single beta is ``final_variance``.
        """
        if steps < 1:
            raise ValueError(f'a schedule needs at least one step, got {steps}.')
        if steps == 1:
            return cls(torch.tensor([final_variance], dtype=torch.float64, device='cpu'))
        return cls(torch.linspace(initial_variance, final_variance, steps, dtype=torch.float64, device='cpu'))

    @classmethod
    def training(cls) -> NoiseSchedule:
        """The schedule whose levels training covers: 2000 steps, 1 - alpha from 1e-6 to 0.01 (design of WaveGrad and SR3)."""
        return cls.linear(2000, 1e-6, 0.01)

    @classmethod
    def scaled_linear(cls, steps: int, initial_variance: float, final_variance: float) -> NoiseSchedule:
        """Betas whose square roots are linear, as Stable Diffusion's are."""
        return cls(torch.linspace(initial_variance**0.5, final_variance**0.5, steps, dtype=torch.float64, device='cpu')**2)

    def without_signal(self) -> NoiseSchedule:
        """The schedule whose sqrt(alpha_bar) is shifted and scaled so that it is 0 at T, and as it was at t = 1 (zero terminal
        SNR: Lin et al., WACV 2024, Algorithm 1)."""
        roots = self.alpha_bars**0.5
        alpha_bars = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1])))**2
        return NoiseSchedule(1 - torch.cat([alpha_bars[:1], alpha_bars[1:] / alpha_bars[:-1]]))

    def spaced(self, steps: int) -> tuple[NoiseSchedule, list[int]]:
        """A schedule of fewer steps, evenly spread with the first and the last among them, and which of this one's they are.

        As in improved DDPM (Nichol and Dhariwal, 2021); steps are counted from 0.

        Raises:
            ValueError: If there are not so many.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f'of {self.steps} steps, {steps} cannot be taken.')
        stride = (self.steps - 1) / max(steps - 1, 1)
        # added up, as published: so halves are rounded the same way
        chosen = [round(at) for at in accumulate(repeat(stride, steps - 1), initial=0.0)] if steps > 1 else [self.steps - 1]
        alpha_bars = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars[chosen]])
        return NoiseSchedule(1 - alpha_bars[1:] / alpha_bars[:-1]), chosen

    def every(self, stride: int) -> NoiseSchedule:
        """The schedule of ``steps / stride`` steps that visits every ``stride``-th level of this one, alpha_bar_T among them.

        The sub-sequence tau of DDIM (Song et al., ICLR 2021, Sec. 4.2).

        Raises:
            ValueError: If ``stride`` does not divide the number of steps.
        """
        if stride < 1 or self.steps % stride:
            raise ValueError(f'a schedule of {self.steps} steps cannot be walked in strides of {stride}.')
        return NoiseSchedule(1 - self.alphas.view(-1, stride).prod(1))

    @property
    def steps(self) -> int:
        """T."""
        return self.betas.numel()

    @property
    def levels(self) -> list[float]:
        """What a sampler shows its denoiser, sqrt(alpha_bar_t) of one step each, from t = 1 to T."""
        return [alpha_bar**0.5 for alpha_bar in self.alpha_bars_as_floats]

    @property
    def alphas(self) -> Tensor:
        """alpha_t, shape (T,), float64."""
        return 1 - self.betas

    @property
    def alpha_bars(self) -> Tensor:
        """Products alpha_1 ... alpha_t, shape (T,), float64, falling."""
        return self.alphas.cumprod(0)


def draw_alpha_bar(schedule: NoiseSchedule, batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw continuous noise levels for training: t uniform in 1..T, alpha-bar uniform in [alpha_bar_t, alpha_bar_{t-1}].

    Returns:
        alpha-bar, shape (batch,), float64, on the CPU.
    """
    alpha_bars = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bars.cpu()])  # index t = 0..T
    t = torch.randint(1, schedule.steps + 1, (batch, ), generator=generator)
    position = torch.rand(batch, dtype=torch.float64, generator=generator)
    return alpha_bars[t] + position * (alpha_bars[t - 1] - alpha_bars[t])
