"""What systems that sample cost, from runs on PyTorch's meta device, which compute shapes only: no weights, no GPU.

    python scripts/latent_costs.py [NAME ...] [--output costs.md] [--seconds SIDE [--precision bfloat16]]

For each system: its parameters, all and trained; the operations of restoring a 1280x720 image, and one of 512x512 as the
published table seems to count; and the memory in GiB that a training step on one 512 crop and a 1280x720 restoration need
at least: weights, gradients, two moments of AdamW, and the most bytes of tensors that are alive at once. Attention is taken as
fused kernels compute it, which never hold its matrix. Beside it stands the published table (DeblurDiff, reply to the
reviewers), which does not say how it counts. The elementwise work of a selective scan is in no count of operations.
``--seconds`` alone computes: each system with random weights restores one square image, in a process of its own whose peak is
told beside the seconds.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.sampling import Part, SamplingNetwork, rules_of
from stochastic_refine.comparison.complexity import parameters_of
from stochastic_refine.comparison.published import published_table
from stochastic_refine.errors import InputError
from stochastic_refine.inference.memory import LiveTensors
from stochastic_refine.inference.operating_point import default_point
from stochastic_refine.inference.restorer import Restorer

GIB = 2**30
OPTIONS = Path(__file__).resolve().parents[1] / 'options'


def latent_loss(net: nn.Module, lq: Tensor, gt: Tensor) -> Tensor:
    """The training loss of a :class:`~stochastic_refine.latent.latent_net.LatentNet`."""
    return sum((prediction - target).square().mean() for prediction, target in net(lq, gt=gt).values())


@dataclass
class System:
    """A row.

    Args:
        options: Of the network.
        published: Its name in the published table.
        loss: What a training step minimises; None where the step is not measured.
        training: Options that a training has besides.
    """

    options: dict[str, Any]
    published: str
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = latent_loss
    training: dict[str, Any] = field(default_factory=lambda: {'gradient_checkpointing': True})


def network_of(options_file: str) -> dict[str, Any]:
    """The network of an options file, with what is named there by its weights as a part of its own."""
    network = yaml.safe_load((OPTIONS / options_file).read_text())['network_g']
    return {key: value for key, value in network.items() if key != 'base'}


SYSTEMS = {
    'ControlNet': System({'type': 'ControlNet', 'attention_window': 64}, 'ControlNet'),
    'DeblurDiff': System({'type': 'DeblurDiff'}, 'DeblurDiff'),
    'DiffBIR': System({'type': 'DiffBIR', 'stage1': network_of('latent/train_diffbir_stage1.yml')}, 'DiffBIR'),
    'PASD': System({'type': 'PASD'}, 'PASD'),
    'PASD light': System({'type': 'PASD', 'light': True}, 'PASD'),
    'EVSSM': System(network_of('baselines/test_evssm.yml'), 'EVSSM', loss=None),
    'HI-Diff': System(network_of('hidiff/test.yml'), 'Hi-Diff', loss=None),
    'ResShift': System(network_of('latent/test_resshift.yml'), 'ResShift', loss=None),
}


class Fused(torch.autograd.Function):
    """Attention as a fused kernel computes it, without a result: what is kept for the backward pass, and the operations."""

    operations = 0

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        Fused.operations += 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let networks on the meta device attend by :class:`Fused`."""
    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, *args, **kwargs: Fused.apply(q, k, v)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def parts_of(net: nn.Module) -> list[Part]:
    """What is called to restore an image at the network's default point; a network that does not sample is one call."""
    return list(net.parts(default_point(net))) if isinstance(net, SamplingNetwork) else [Part(net)]


def operations(part: Part, height: int, width: int) -> tuple[float, float]:
    """GFLOPs (two per multiply-add) of one call of a part for an image of this size: its attention's products, and the rest."""
    Fused.operations = 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        part.net(*part.example(math.ceil(height / part.scale), math.ceil(width / part.scale), 'meta'))
    return Fused.operations / 1e9, counter.get_total_flops() / 1e9


def restoring(net: nn.Module, height: int, width: int) -> tuple[float, float]:
    """GFLOPs of restoring one image at the network's default point, as :func:`operations`."""
    total = [0.0, 0.0]
    for part in parts_of(net):
        total = [a + part.calls * b for a, b in zip(total, operations(part, height, width))]
    return total[0], total[1]


def peak(call: Callable[[], Any], *nets: nn.Module) -> int:
    """The most bytes that a call holds at once, besides the networks' parameters and gradients."""
    with LiveTensors() as tensors:
        known = [value.untyped_storage() for net in nets for parameter in net.parameters()
                 for value in (parameter, parameter.grad) if value is not None]
        tensors.live.update({id(storage): 0 for storage in known})  # views of them, and sums in place, are not new
        call()
    return tensors.peak


def restoring_bytes(net: nn.Module, height: int, width: int) -> int:
    """The most bytes that a call of a part for an image of this size holds, besides the weights, in float32."""
    peaks = []
    for part in parts_of(net):
        given = part.example(math.ceil(height / part.scale), math.ceil(width / part.scale), 'meta')
        with torch.no_grad():
            peaks.append(peak(lambda: part.net(*given), part.net))  # noqa: B023
    return max(peaks)


def training_bytes(net: nn.Module, system: System, side: int) -> int:
    """The most bytes that a training step on one crop holds, besides weights, gradients and moments."""
    kind = next(net.parameters()).dtype
    lq, gt = (torch.zeros(1, 3, side, side, device='meta', dtype=kind) for _ in range(2))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    return peak(lambda: system.loss(net, lq, gt).backward(), net, *(part.net for part in parts_of(net)))


def row(name: str, system: System) -> dict[str, Any]:
    """A system's figures by column."""
    published = published_table('deblurdiff_cost')['rows'].get(system.published, {})
    scores = published_table('deblurdiff_ablation')['rows'].get(system.published, {})
    net = plan_arch(system.options).eval()
    every = parameters_of(net, default_point(net))
    trained = sum(parameter.numel() for parameter in every if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in every)
    with fused_attention():
        attention, rest = restoring(net, 720, 1280)
        small = restoring(net, 512, 512)
        kept = restoring_bytes(net, 720, 1280)
        step = {}
        for words, more in (('', {}), (', checkpointed', system.training)) if system.loss else ():
            net = plan_arch({**system.options, **more}).bfloat16()
            step[f'step, bf16{words}'] = (training_bytes(net, system, 512) + 16 * trained + 2 * (total - trained)) / GIB
    return {
        'system': name, 'params': total / 1e6, 'trained': trained / 1e6, 'published params': published.get('params'),
        'network calls': str(sum(part.calls for part in parts_of(net))), 'published seconds': published.get('seconds'),
        'published GoPro PSNR': str(scores.get('psnr', '-')), 'published GoPro LPIPS': str(scores.get('lpips', '-')),
        'TFLOPs 1280x720': (attention + rest) / 1e3, 'GMACs 512x512 without attention': small[1] / 2,
        'published GFLOPs': published.get('gflops'), **step,
        'restore, float32': (4 * total + kept) / GIB, 'restore, bf16': (2 * total + kept / 2) / GIB}


def measured(options: dict[str, Any], side: int, precision: str) -> tuple[float, float]:
    """Seconds to restore one square image on this machine after a first call, and this process's peak in GiB; random weights,
    which cost what others do."""
    restorer = Restorer(build_arch(options).eval(), precision=precision)
    image, point = torch.rand(3, side, side), default_point(restorer.net)
    rules = rules_of(options)
    restorer.restore(image, replace(point, steps=(rules and rules.steps) or 1))
    started = time.perf_counter()
    restorer.restore(image, point)
    seconds = time.perf_counter() - started
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, kilobytes / 2**20


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown; what a row lacks is a dash."""
    columns = list(dict.fromkeys(key for each in rows for key in each))
    lines = [columns, ['---'] * len(columns)]
    for each in rows:
        cells = [each.get(column) for column in columns]
        lines.append([cell if isinstance(cell, str) else '-' if cell is None else f'{cell:,.1f}' for cell in cells])
    return '\n'.join(f"| {' | '.join(line)} |" for line in lines) + '\n'


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('systems', nargs='*', metavar='NAME', help=f"any of {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument('--output', type=Path, help='file for the table')
    parser.add_argument('--seconds', type=int, metavar='SIDE', help='also restore an image of SIDE x SIDE, here, by the CPU: '
                        'a system on Stable Diffusion takes minutes and 14 GiB')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32', help='of that')
    args = parser.parse_args()
    for name in args.systems:
        if name not in SYSTEMS:
            raise InputError(f"There is no system '{name}' here; the systems are {', '.join(SYSTEMS)}.")
    rows = [row(name, SYSTEMS[name]) for name in args.systems or SYSTEMS]
    for each in rows if args.seconds else ():
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as fresh:  # whose peak is this system's
            given = SYSTEMS[each['system']].options, args.seconds, args.precision
            where = f'{args.seconds}x{args.seconds}, {args.precision}'
            each[f'seconds {where}'], each[f'peak GiB {where}'] = fresh.submit(measured, *given).result()
    text = table(rows)
    print(text, end='')
    if args.output:
        args.output.write_text(text)


if __name__ == '__main__':
    try:
        main()
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        sys.exit(2)
