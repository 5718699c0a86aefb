"""Time the selective scan of EVSSM's first level against the recurrence step by step, forward and with gradients.

    python scripts/benchmark_scan.py [--side 256] [--device cpu]

One line for each: seconds, best of some runs, and how often the parallel one is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stochastic_refine.archs.selective_scan import plain_scan, selective_scan


def inputs(side: int, device: str, gradient: bool) -> list[Tensor]:
    """u, dt, A, B, C, D as in a block of EVSSM's first level, width 48, of one image with this side."""
    generator, length, inner, states = torch.Generator().manual_seed(0), side**2, 96, 8
    shapes = [(1, length, inner), (1, length, inner), (inner, states), (1, length, states), (1, length, states), (inner, )]
    u, dt, A, B, C, D = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    return [each.requires_grad_(gradient) for each in (u, 0.1 * dt.abs(), -A.exp(), B, C, D)]


def seconds(scan: Callable[..., Tensor], given: list[Tensor], gradient: bool, runs: int) -> float:
    """The best time of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        with torch.set_grad_enabled(gradient):
            y = scan(*given)
            if gradient:
                torch.autograd.grad(y.square().mean(), given)
        if y.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--side', type=int, default=256, help='of the image in pixels (default: 256)')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    for gradient in (False, True):
        given = inputs(args.side, args.device, gradient)
        parallel, plain = (seconds(scan, given, gradient, runs) for scan, runs in ((selective_scan, 3), (plain_scan, 1)))
        print(f'{args.side}x{args.side}, {"with gradients" if gradient else "forward"}, {args.device}, '
              f'{torch.get_num_threads()} threads: parallel {parallel:.3f} s, step by step {plain:.3f} s, '
              f'{plain / parallel:.1f} times as fast', flush=True)


if __name__ == '__main__':
    main()
