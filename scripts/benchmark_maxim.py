"""How fast MAXIM is: seconds and peak memory per image in bfloat16 and float32, against a plain float32 NCHW network.

    python scripts/benchmark_maxim.py
    python scripts/benchmark_maxim.py --image blurred.png --size 1280x720 --threads 2 --repetitions 1

All variants run in turns in one process, after one warm-up each at a small size; a ratio is the median of those within a
repetition, with the lowest and the highest beside it. The plain network is written below and uses the weights alone: maps as
(B, C, H, W), pixelwise layers as 1x1 convolutions, mixing by permuting positions to the end. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data
from torch import Tensor, nn
from tqdm import tqdm

from stochastic_refine.archs import MAXIM, build_arch
from stochastic_refine.archs.maxim_arch import Encoder, Resized, Stage
from stochastic_refine.archs.maxim_blocks import Axis, CrossGating, Groups, LinearAttention, Mixing, MultiAxisMlp, SpatialGate
from stochastic_refine.archs.memory_format import channels_last
from stochastic_refine.archs.padding import reflect_pad_around
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.comparison.provenance import commit, machine
from stochastic_refine.errors import InputError

# ---------------------------------------------------------------- the plain network, on (B, C, H, W) in float32


def pixelwise(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)


def normalise(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate='tanh')


def mix(layer: Mixing, axis: Axis, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    if axis.is_grid:
        x = x.view(b, c, axis.height, h // axis.height, axis.width, w // axis.width).permute(0, 1, 3, 5, 2, 4)
    else:
        x = x.view(b, c, h // axis.height, axis.height, w // axis.width, axis.width).permute(0, 1, 2, 4, 3, 5)
    shape = x.shape
    x = F.linear(x.flatten(4), layer.weight, layer.bias).view(shape)
    return x.permute(*((0, 1, 4, 2, 5, 3) if axis.is_grid else (0, 1, 2, 4, 3, 5))).reshape(b, c, h, w)


def gated_mlp(layer: nn.Module, axis: Axis, x: Tensor) -> Tensor:
    a, b = gelu(pixelwise(layer.in_project, normalise(layer.norm, x))).chunk(2, dim=1)
    return x + pixelwise(layer.out_project, a * (mix(layer.mixing, axis, normalise(layer.gate_norm, b)) + 1))


def two_axes(layer: MultiAxisMlp | SpatialGate, x: Tensor) -> Tensor:
    run = gated_mlp if isinstance(layer, MultiAxisMlp) else mix
    u, v = gelu(pixelwise(layer.in_project, normalise(layer.norm, x))).chunk(2, dim=1)
    u, v = (run(half, axis, part) for half, axis, part in zip((layer.grid, layer.block), layer.axes, (u, v)))
    y = pixelwise(layer.out_project, torch.cat([u, v], dim=1))
    return x + y if isinstance(layer, MultiAxisMlp) else y


def groups(layer: Groups, x: Tensor) -> Tensor:
    y = x
    for mlp, block in zip(layer.mlps, layer.attentions):
        y = two_axes(mlp, y)
        z = normalise(block.norm, y)
        if isinstance(block, LinearAttention):
            z = pixelwise(block.linear2, gelu(pixelwise(block.linear1, z)))
        else:
            z = convolve(block.conv2, F.leaky_relu(convolve(block.conv1, z), 0.2))
        squeezed = pixelwise(block.attention.squeeze, z.mean((2, 3), keepdim=True)).relu()
        y = y + z * pixelwise(block.attention.excite, squeezed).sigmoid()
    return x + y


def cross_gating(layer: CrossGating, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(layer.up, nn.Identity):
        y = F.conv_transpose2d(y, layer.up.weight, layer.up.bias, stride=2)
    x, y = pixelwise(layer.enter_x, x), pixelwise(layer.enter_y, y)
    inner_x = gelu(pixelwise(layer.in_project_x, normalise(layer.norm_x, x)))
    inner_y = gelu(pixelwise(layer.in_project_y, normalise(layer.norm_y, y)))
    y = y + pixelwise(layer.out_project_y, inner_y * two_axes(layer.gate_x, inner_x))
    return x + pixelwise(layer.out_project_x, inner_x * two_axes(layer.gate_y, inner_y)) + y, y


def resize(layer: Resized, x: Tensor) -> Tensor:
    if layer.scale != 1:
        x = F.interpolate(x, scale_factor=layer.scale, mode='bilinear', antialias=layer.scale < 1)
    return pixelwise(layer, x)


def encode(layer: Encoder, x: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
    x = groups(layer.groups, pixelwise(layer.enter, x))
    if layer.cross_gating is not None:
        x, _ = cross_gating(layer.cross_gating, x, previous)
    return x, convolve(layer.down, x)


def run_stage(stage: Stage, images: list[Tensor], previous: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list]:
    features = [convolve(conv, image) for conv, image in zip(stage.inputs, images)]
    if previous:
        features = [cross_gating(fusion, f, attended)[0] for fusion, f, (_, attended) in zip(stage.fusions, features, previous)]
    x, encoded, levels = features[0], [], range(len(images))
    for level in levels:
        bridge, x = encode(stage.encoders[level], torch.cat([x, features[level]], 1), previous[level][0] if previous else None)
        encoded.append(bridge)
    for block in stage.bottleneck:
        x = groups(block.groups, pixelwise(block.enter, x))
    y, skips, passed = x, {}, {}
    for level in reversed(levels):
        signal = torch.cat([resize(layer, bridge) for layer, bridge in zip(stage.bridges[level], encoded)], 1)
        skips[level], y = cross_gating(stage.skips[level], signal, y)
    for level in reversed(levels):
        decoder = stage.decoders[level]
        signal = [resize(stage.signals[level][j], skips[j]) for j in reversed(levels)]
        x = F.conv_transpose2d(x, decoder.up.weight, decoder.up.bias, stride=2)
        x = groups(decoder.groups, pixelwise(decoder.enter, torch.cat([x, *signal], 1)))
        if stage.attentions:
            sam = stage.attentions[level]
            restored = convolve(sam.to_image, x) + images[level]
            passed[level] = (encoded[level] + x, convolve(sam.features, x) * convolve(sam.weigh, restored).sigmoid() + x)
        else:
            restored = convolve(stage.outputs[level], x) + images[level]
    return restored, [passed[level] for level in levels] if passed else []


def run_plain(net: MAXIM, x: Tensor) -> Tensor:
    """The restored image by the plain network."""
    (height, width), previous = x.shape[-2:], []
    x, (top, left) = reflect_pad_around(x, net.size_multiple)
    images = [x, *(F.interpolate(x, scale_factor=0.5**level, mode='nearest-exact') for level in range(1, net.depth))]
    for stage in net.stages.values():
        restored, previous = run_stage(stage, images, previous)
    return restored[..., top:top + height, left:left + width]


# ---------------------------------------------------------------- measuring


class Peak:
    """Largest memory since it was made, in GiB: of the process (Linux alone tells), or of tensors on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == 'linux':
            Path('/proc/self/clear_refs').write_text('5')  # forget the largest resident size so far

    def __call__(self) -> float:
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated() / 2**30
        status = Path('/proc/self/status').read_text() if sys.platform == 'linux' else 'VmHWM: nan'
        return float(status.partition('VmHWM:')[2].split()[0]) / 2**20


def blurred_photo(file: str | None, width: int, height: int) -> Tensor:
    """(1, 3, height, width) in [0, 1]: the middle of a photo, repeated by reflection where it is smaller."""
    photo = np.array(Image.open(file).convert('RGB')) if file else data.astronaut()
    for axis, side in enumerate((height, width)):
        start = max((photo.shape[axis] - side) // 2, 0)
        photo = photo.take(range(start, min(start + side, photo.shape[axis])), axis)
        photo = np.pad(photo, [(0, side - photo.shape[axis] if i == axis else 0) for i in range(3)], mode='reflect')
    return torch.from_numpy(photo).permute(2, 0, 1)[None] / 255


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='maxim-gopro', help='name or file (default: maxim-gopro); random for fresh ones')
    parser.add_argument('--image', help="a blurred photo (default: one of scikit-image's, sharp)")
    parser.add_argument('--size', default='256x256', help='WIDTHxHEIGHT, the middle of the photo (default: 256x256)')
    parser.add_argument('--variants', nargs='+', default=['bfloat16', 'float32', 'plain'],
                        choices=['bfloat16', 'float32', 'plain'])
    parser.add_argument('--repetitions', type=int, default=3)
    parser.add_argument('--threads', type=int, help="of the CPU; default PyTorch's")
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--cpu-time', action='store_true', help="the process's CPU time, on a CPU that has other work too")
    return parser.parse_args()


def main() -> None:
    """Run it."""
    args = options()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.weights == 'random':
        net = MAXIM()
    else:
        checkpoint = read_weights(find_weights(args.weights))
        net = build_arch(checkpoint.metadata['network'])
        net.load_state_dict(checkpoint.params)
        if not isinstance(net, MAXIM):
            raise InputError(f'{args.weights} holds no MAXIM; give weights of one, or random.')
    plain, net = net.eval().to(device), channels_last(copy.deepcopy(net)).eval().to(device)
    width, height = map(int, args.size.split('x'))
    x = blurred_photo(args.image, width, height).to(device)

    def ours(precision: str) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bfloat16'):
                return net(x)[-1].float()
        return run

    variants = {name: (lambda x: run_plain(plain, x)) if name == 'plain' else ours(name) for name in args.variants}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    peaks, results = {}, {}
    clock = time.process_time if args.cpu_time else time.perf_counter
    with torch.inference_mode():
        for run in variants.values():
            run(x[..., :64, :64])
        for repetition in tqdm(range(args.repetitions)):
            for name, run in list(variants.items())[::-1 if repetition % 2 else 1]:
                peak, start = Peak(device), clock()
                results[name] = run(x).cpu()
                seconds[name].append(clock() - start)
                peaks[name] = max(peaks.get(name, 0), peak())

    print(f'{machine(device)}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, commit {commit()}; weights '
          f'{args.weights}, {width}x{height}, {args.repetitions} repetitions{" in CPU time" if args.cpu_time else ""}.')
    print('\n| | seconds | GiB at the peak | times as fast as plain | PSNR to float32 |\n|---|--:|--:|--:|--:|')
    reference = results.get('float32', results.get('plain'))
    for name in variants:
        ratios = [a / b for a, b in zip(seconds.get('plain', []), seconds[name])]
        times = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})' if ratios else '–'
        error = 0 if reference is None else (results[name] - reference).square().mean().item()
        psnr = f'{-10 * math.log10(error):.1f} dB' if error else '–'
        print(f'| {name} | {statistics.median(seconds[name]):.3g} | {peaks[name]:.2f} | {times} | {psnr} |')


if __name__ == '__main__':
    try:
        main()
    except InputError as error:
        raise SystemExit(f'Error: {error}') from None
