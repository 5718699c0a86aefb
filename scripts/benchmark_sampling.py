"""How fast sampling is: its overhead over bare network calls, against the plain float32 loop, and several samples against one.

    python scripts/benchmark_sampling.py
    python scripts/benchmark_sampling.py --size 512x512 --steps 20 --threads 2
    python scripts/benchmark_sampling.py --device cuda --compile --sampler ddim    # 1280x720 unless told otherwise

All variants run in turns of changing order, --repetitions times after one warm-up; a ratio is the median of those within a
repetition, with the lowest and the highest beside it. Prints a Markdown table. The plain loop is written below and uses the
networks alone: parameters and images in float32 and NCHW, concatenated, run and put through the ancestral sampler's equations
at each step.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import torch
from skimage import data
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from stochastic_refine.archs import PredictRefineNet
from stochastic_refine.archs.memory_format import channels_last
from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.comparison.provenance import commit, machine
from stochastic_refine.diffusion import SAMPLERS, SampleNoise
from stochastic_refine.errors import InputError
from stochastic_refine.inference.devices import choose_device, choose_precision
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.weights import load_network

Times = dict[str, list[float]]


def blurred_photo(height: int, width: int) -> Tensor:
    """A photo that ships with scikit-image, scaled and blurred along a line, (3, H, W), [0, 1]."""
    photo = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(cv2.blur(photo, (9, 1))).permute(2, 0, 1) / 255


def plain_restore(net: PredictRefineNet, lq: Tensor, point: OperatingPoint) -> Tensor:
    """Algorithm 1 as it stands in the paper, for a batch of one, without any measure of the package: (3, H, W)."""
    schedule, scale = point.schedule, net.residual_scale
    alphas, alpha_bars = schedule.alphas.tolist(), schedule.alpha_bars.tolist()
    noise = SampleNoise([point.seed], lq.shape, lq.device)
    with torch.inference_mode():
        y = lq[None]
        initial = net.predictor(y)
        r = noise()
        for t in reversed(range(point.steps)):
            seen = [r, 2 * y - 1] + ([2 * initial - 1] if net.condition == 'lq+initial' else [])
            eps = net.denoiser(torch.cat(seen, dim=1), torch.tensor([alpha_bars[t]**0.5], device=lq.device))
            r0 = (r - (1 - alpha_bars[t])**0.5 * eps) / alpha_bars[t]**0.5
            if point.clamp:
                r0 = 2 * scale * ((initial + r0 / (2 * scale)).clamp(0, 1) - initial)
            before = alpha_bars[t - 1] if t else 1.0
            r = (before**0.5 * (1 - alphas[t]) * r0 + alphas[t]**0.5 * (1 - before) * r) / (1 - alpha_bars[t])
            if t:
                r = r + ((1 - before) / (1 - alpha_bars[t]) * (1 - alphas[t]))**0.5 * noise()
        return (initial + r / (2 * scale)).clamp(0, 1)[0]


def bare_calls(predictor: nn.Module, denoiser: nn.Module, lq: Tensor, steps: int, channels: int, precision: str) -> None:
    """The network calls of a restoration and nothing else, on input that is ready in the network's layout and precision."""
    dtype = next(denoiser.parameters()).dtype
    with torch.inference_mode(), torch.autocast(lq.device.type, torch.bfloat16, enabled=precision == 'bfloat16'):
        x = lq.repeat(channels // 3, 1, 1)[None].to(dtype, memory_format=torch.channels_last)
        level = torch.tensor([0.5], device=lq.device)
        predictor(lq[None])
        for _ in range(steps):
            denoiser(x, level)


def alternate(variants: dict[str, Callable[[], object]], repetitions: int, device: torch.device,
              clock: Callable[[], float] = time.perf_counter) -> Times:
    """Seconds of every variant in every repetition, and each once beforehand.

    Their order changes, so that none always finds the caches and the memory as the same other one leaves them.
    """
    times: Times = {name: [] for name in variants}
    order = random.Random(0)
    for repetition in tqdm(range(-1, repetitions), desc='repetitions'):
        for name, run in order.sample(list(variants.items()), len(variants)):
            _wait(device)
            start = clock()
            run()
            _wait(device)
            if repetition >= 0:
                times[name].append(clock() - start)
    return times


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def ratio(over: list[float], under: list[float], factor: float = 1) -> str:
    """Median, lowest and highest of the ratios within a repetition."""
    ratios = [factor * a / b for a, b in zip(over, under)]
    return f'{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})'


def network_flops(net: PredictRefineNet, channels: int, height: int, width: int) -> tuple[int, int]:
    """2 x multiply-accumulates of the predictor and of one call of the denoiser."""

    def flops(part: nn.Module, *shapes: tuple[int, ...]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            copy.deepcopy(part).to('meta')(*(torch.empty(shape, device='meta') for shape in shapes))
        return counter.get_total_flops()

    return flops(net.predictor, (1, 3, height, width)), flops(net.denoiser, (1, channels, height, width), (1, ))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='small', help='bundled weights, or a checkpoint, of a predict-and-refine pair')
    parser.add_argument('--size', help='WIDTHxHEIGHT; default 256x256, on a GPU 1280x720')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--samples', type=int, default=4, help='several samples, against one')
    parser.add_argument('--sampler', default='ancestral', choices=sorted(SAMPLERS), help='the plain loop is ancestral')
    parser.add_argument('--repetitions', type=int, default=7)
    parser.add_argument('--threads', type=int, help="of the CPU; default PyTorch's")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto', help='of the fast variants: auto, float32 or bfloat16')
    parser.add_argument('--compile', action='store_true', help='compile the denoiser, in the bare calls too')
    parser.add_argument('--cpu-time', action='store_true', help="the process's CPU time, on a CPU that has other work too")
    return parser.parse_args()


def main() -> None:
    """Run it."""
    args = options()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    width, height = map(int, (args.size or ('1280x720' if device.type == 'cuda' else '256x256')).split('x'))
    plain, points, _ = load_network(find_weights(args.weights))
    if not isinstance(plain, PredictRefineNet) or plain.predictor is None:
        raise InputError(f'{args.weights} holds no predict-and-refine pair; choose other weights.')
    plain = plain.to(device)
    net = channels_last(copy.deepcopy(plain))
    channels = net.denoiser_channels
    lq = blurred_photo(height, width).to(device)
    base = next(iter(points.values()), OperatingPoint())
    one = OperatingPoint(steps=args.steps, final_variance=base.final_variance, clamp=base.clamp, sampler=args.sampler)
    ancestral = OperatingPoint(steps=args.steps, final_variance=base.final_variance, clamp=base.clamp)
    several = OperatingPoint(**{**one.as_options(), 'num_samples': args.samples})

    def restore(precision: str, point: OperatingPoint) -> Tensor:
        return Restorer(net, precision, tile=None, compile=args.compile).restore(lq, point).image

    def bare(denoiser: nn.Module, precision: str) -> Callable[[], None]:
        if args.compile:
            denoiser = copy.deepcopy(denoiser)
            denoiser.compile()
        return partial(bare_calls, net.predictor, denoiser, lq, args.steps, channels, precision)

    size = 8192 if device.type == 'cuda' else 1024
    matrices = torch.randn(2, size, size, device=device, dtype=getattr(torch, precision))
    products = 20

    def multiply() -> None:
        with torch.inference_mode():
            for _ in range(products):
                matrices[0] @ matrices[1]

    variants: dict[str, Callable[[], object]] = {
        'plain': partial(plain_restore, plain, lq, ancestral),
        'float32': partial(restore, 'float32', one),
        'bare float32': bare(net.denoiser, 'float32'),
        'several': partial(restore, precision, several),
        'matrix product': multiply,
    }
    if precision == 'bfloat16':
        variants |= {
            'bfloat16': partial(restore, 'bfloat16', one),
            'bare bfloat16, autocast': bare(net.denoiser, 'bfloat16'),
            'bare bfloat16, converted weights': bare(copy.deepcopy(net.denoiser).to(torch.bfloat16), 'bfloat16'),
        }
    times = alternate(variants, args.repetitions, device, time.process_time if args.cpu_time else time.perf_counter)
    fast = times[precision]
    error = (plain_restore(plain, lq, ancestral) - restore(precision, ancestral)).square().mean().item()

    predictor_flops, denoiser_flops = network_flops(net, channels, height, width)
    flops = predictor_flops + args.steps * args.samples * denoiser_flops
    rate = products * 2 * size**3 / statistics.median(times['matrix product'])
    rows = [(f'restore / (predictor + {args.steps} denoiser calls), {name.removeprefix("bare ")}',
             ratio(times[name.removeprefix('bare ').partition(',')[0]], times[name]), 'at most 1.00')
            for name in variants if name.startswith('bare ')]
    rows += [(f'plain float32 NCHW loop / restore, {name}', ratio(times['plain'], times[name]),
              'at least 2.5' if name == precision else '') for name in dict.fromkeys(['float32', precision])]
    rows += [
        (f'PSNR between these two, {precision}', f'{-10 * math.log10(error):.1f} dB' if error else 'equal', 'above 45 dB'),
        (f'{args.samples} samples / ({args.samples} x one sample), {precision}',
         ratio(times['several'], fast, 1 / args.samples), 'below 1'),
        (f'{args.samples} samples: share of the rate of {precision} matrix products ({rate / 1e12:.2f} TFLOP/s)',
         ratio(times['matrix product'], times['several'], flops / (products * 2 * size**3)),
         'at least 0.45' if device.type == 'cuda' else ''),
    ]
    print(f'{machine(device)}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, commit {commit()}; '
          f'weights {args.weights}, {width}x{height}, {args.steps} steps of {args.sampler}, '
          f'compile {"on" if args.compile else "off"}; '
          f'{args.repetitions} repetitions{" in CPU time" if args.cpu_time else ""}; '
          f'one restore in {precision}: {statistics.median(fast):.3g} s.')
    if device.type != 'cuda':
        print('All on the CPU; no figure is from a GPU.')
    print('\n| | median (lowest to highest) | target |\n|---|---|---|')
    for row in rows:
        print(f'| {" | ".join(row)} |')


if __name__ == '__main__':
    try:
        main()
    except InputError as error:
        raise SystemExit(f'Error: {error}') from None
