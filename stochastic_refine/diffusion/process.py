"""The forward process and its inverse, for scalars of one step or per-sample tensors that broadcast over images."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Level: TypeAlias = Tensor | float  # alpha-bar: a float, or a tensor that broadcasts against the images, e.g. (B, 1, 1, 1)


def forward_marginal(r0: Tensor, eps: Tensor, alpha_bar: Level) -> Tensor:
    """Eq. (2): ``r_t = sqrt(alpha_bar) r0 + sqrt(1 - alpha_bar) eps``.

    Sec. 3 of the paper prints ``(1 - alpha_bar) eps`` once; the square root is meant, as Eqs. (2), (5) and (6) show.
    """
    signal, sigma = alpha_bar**0.5, (1 - alpha_bar)**0.5
    if isinstance(alpha_bar, Tensor):
        # The roots are taken in the table's float64, because near alpha_bar = 1 sigma would lose its digits in float32.
        signal, sigma = signal.to(r0), sigma.to(r0)
    return signal * r0 + sigma * eps


def r0_from_eps(r_t: Tensor, eps: Tensor, alpha_bar: Level) -> Tensor:
    """The clean residual that ``r_t`` and ``eps`` imply: Eq. (2) solved for r0."""
    return (r_t - (1 - alpha_bar)**0.5 * eps) / alpha_bar**0.5


def eps_from_r0(r_t: Tensor, r0: Tensor, alpha_bar: Level) -> Tensor:
    """The noise that ``r_t`` and ``r0`` imply: Eq. (2) solved for eps; ``alpha_bar`` must be below 1."""
    return (r_t - alpha_bar**0.5 * r0) / (1 - alpha_bar)**0.5


def v_target(r0: Tensor, eps: Tensor, alpha_bar: Level) -> Tensor:
    """What a network that predicts v is trained for, v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) r0 (Salimans and Ho)."""
    return forward_marginal(eps, -r0, alpha_bar)


def r0_from_v(r_t: Tensor, v: Tensor, alpha_bar: Level) -> Tensor:
    """The clean residual that ``r_t`` and ``v`` imply; unlike :func:`r0_from_eps` also where alpha_bar = 0."""
    return forward_marginal(r_t, -v, alpha_bar)


def posterior(alpha: float, alpha_bar: float, alpha_bar_prev: float) -> tuple[float, float, float]:
    """Eq. (3): ``q(r_{t-1} | r_t, r0) = N(c_0 r0 + c_t r_t, variance)``.

    Args:
        alpha: alpha_t.
        alpha_bar: alpha_bar_t.
        alpha_bar_prev: alpha_bar_{t-1}, which is 1 for t = 1.

    Returns:
        ``(c_0, c_t, variance)``. The variance is 0 for t = 1. Algorithm 1 prints it as the scale of the noise; Eq. (3) makes
        it a variance, so samplers scale the noise by its square root.
    """
    c_0 = alpha_bar_prev**0.5 * (1 - alpha) / (1 - alpha_bar)
    c_t = alpha**0.5 * (1 - alpha_bar_prev) / (1 - alpha_bar)
    return c_0, c_t, (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha)
