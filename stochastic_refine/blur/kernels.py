"""Camera-shake kernels: a random trajectory of the camera during the exposure, drawn into a small image.

The paper's Sec. 6 blurs DIV2K by "synthetic camera shake" without giving the generator. Ours is a random walk with inertia: the
direction of motion turns a little at every moment (hand tremor) and now and then jumps (an impulse), which gives the curved
strokes with bright dwelling points that measured shake kernels show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def camera_shake_trajectory(length: float,
                            rng: np.random.Generator,
                            turn: float = 0.15,
                            impulse_rate: float = 0.5,
                            direction: float | None = None,
                            points: int = 128) -> NDArray[np.float64]:
    """Positions of a point light on the sensor at equidistant moments of the exposure.

    Args:
        length: Length of the path, pixels; >= 0.
        rng: Source of randomness.
        turn: Standard deviation of the change of direction per moment, radians.
        impulse_rate: Mean number of sudden changes of direction in one exposure.
        direction: Of the first motion, radians, 0 along the x axis; None draws it.
        points: Moments.

    Returns:
        (points, 2), (y, x) in pixels, with mean 0: the blurred image is not shifted against the sharp one.
    """
    steps = points - 1
    turns = rng.normal(0, turn, steps)
    impulses = rng.random(steps) < impulse_rate / steps
    turns[impulses] += rng.uniform(-np.pi, np.pi, impulses.sum())
    drawn = rng.uniform(0, 2 * np.pi)  # in any case, so that what follows it stays the same
    directions = (drawn if direction is None else direction) + np.cumsum(turns)
    speed = np.exp(np.cumsum(rng.normal(0, 0.1, steps)))  # slow moments dwell and draw bright spots
    velocity = speed[:, None] * np.stack([np.sin(directions), np.cos(directions)], axis=1)
    velocity *= length / speed.sum()
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(velocity, axis=0)])
    return path - path.mean(axis=0)


def rasterize_trajectory(path: NDArray[np.float64]) -> NDArray[np.float32]:
    """Draw a trajectory as a blur kernel, each moment spread bilinearly over four pixels.

    Args:
        path: (N, 2), (y, x) in pixels from the kernel's centre.

    Returns:
        (2 r + 1, 2 r + 1), non-negative, sum 1, with the smallest r that holds the path.
    """
    radius = int(np.ceil(np.abs(path).max()))
    kernel = np.zeros((2 * radius + 2, 2 * radius + 2))  # one row and column more for the bilinear neighbours
    base = np.floor(path).astype(int)
    fraction = path - base
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (fraction[:, 0] if dy else 1 - fraction[:, 0]) * (fraction[:, 1] if dx else 1 - fraction[:, 1])
            np.add.at(kernel, (base[:, 0] + radius + dy, base[:, 1] + radius + dx), weight)
    kernel = kernel[:-1, :-1]  # that row and column only ever hold zeros, since |path| <= radius
    return (kernel / kernel.sum()).astype(np.float32)


def camera_shake_kernel(length: float, rng: np.random.Generator, **trajectory: Any) -> NDArray[np.float32]:
    """A camera-shake kernel of a path ``length`` pixels long; see :func:`camera_shake_trajectory`."""
    return rasterize_trajectory(camera_shake_trajectory(length, rng, **trajectory))
