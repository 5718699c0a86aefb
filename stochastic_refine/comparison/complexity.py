"""Parameters and floating-point operations of networks, counted by mmengine."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..archs.sampling import Part, SamplingNetwork
from ..inference.operating_point import OperatingPoint

#: Side of the square input that mmengine's trace is run on.
TRACED_SIDE = 64


@dataclass
class Complexity:
    """What one run of a network costs.

    Args:
        params: Number of parameters; shared ones count once.
        gflops: 2 x 10^-9 x the multiply-adds of one image; None if they could not be counted, and ``note`` says why.
        measured_at: How the count was had.
        uncounted: Operators that mmengine passes over, with how often each is called.
        note: What is left to say; '' if nothing is.
    """

    params: int
    gflops: float | None = None
    measured_at: str = ''
    uncounted: dict[str, int] = field(default_factory=dict)
    note: str = ''

    @property
    def million_params(self) -> float:
        """Parameters in millions, as tables give them."""
        return self.params / 1e6


def complexity(net: nn.Module,
               height: int = 720,
               width: int = 1280,
               part: Part | None = None) -> Complexity:
    """Count the parameters of ``net`` and the operations of one call with an image of this size.

    mmengine counts multiply-adds of convolutions, linear layers and matrix products, and a few operations per element for
    normalisation, average pooling and resizing (``mmengine.analysis.get_model_complexity_info`` calls both 'flops'); two
    floating-point operations are taken for each. It counts by a traced run, whose cost at full size would be that of the
    network. So the trace is run on a small image, and the ratio between that and the size asked for is counted by PyTorch on
    its meta device, which computes shapes only: exact for convolutions and matrix products, padding included.

    Args:
        net: Maps (B, C, H, W), [0, 1], to one image or several. It is copied and left as it is.
        height, width: Size of the image in pixels.
        part: What it is in a network that samples, which tells its inputs; default: it is called with one image.
    """
    if isinstance(net, SamplingNetwork):
        raise ValueError(f'How often a {type(net).__name__} calls its parts depends on the point; use operating_cost.')
    params = sum(parameter.numel() for parameter in net.parameters())
    try:
        from mmengine.analysis import FlopAnalyzer
    except ImportError:
        return Complexity(params, note='GFLOPs are counted by mmengine, which is not installed; run: pip install mmengine.')

    inputs = (part or Part(net)).example
    net = copy.deepcopy(net).to('cpu', torch.float32).eval()
    with torch.no_grad():
        analyzer = FlopAnalyzer(net, inputs(TRACED_SIDE, TRACED_SIDE, 'cpu'))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
        try:
            macs = float(analyzer.total())
        except Exception as error:  # a foreign network, or one that cannot be traced, can fail in any way
            reason = str(error).strip().split('\n')[0]
            return Complexity(params, note=f'{type(net).__name__} cannot be traced at {TRACED_SIDE}x{TRACED_SIDE} ({reason}).')
        uncounted = dict(sorted(analyzer.unsupported_ops().items()))
        try:
            net = net.to('meta')
            ratio = _products(net, inputs(height, width, 'meta')) / _products(net, inputs(TRACED_SIDE, TRACED_SIDE, 'meta'))
            measured_at = f'{width}x{height}'
        except Exception:  # an operator without a meta kernel, or a network without convolutions
            ratio = height * width / TRACED_SIDE**2
            measured_at = f'{TRACED_SIDE}x{TRACED_SIDE}, scaled to {width}x{height} by the number of pixels'
    return Complexity(params, 2e-9 * macs * ratio, measured_at, uncounted)


def parameters_of(net: nn.Module, point: OperatingPoint) -> list[nn.Parameter]:
    """All parameters that a restoration uses, each once: parts of a network that samples may be shared, and no submodules."""
    parts = net.parts(point) if isinstance(net, SamplingNetwork) else ()
    return list({id(parameter): parameter for module in (net, *(part.net for part in parts))
                 for parameter in module.parameters()}.values())


def operating_cost(net: nn.Module, point: OperatingPoint, height: int = 720, width: int = 1280) -> Complexity:
    """What restoring one image costs: each part of a network that samples times its calls, or one call of any other."""
    if not isinstance(net, SamplingNetwork):
        return complexity(net, height, width)
    parts = [(complexity(part.net, -(-height // part.scale), -(-width // part.scale), part),
              part.calls * (1 if part.per_image else point.num_samples)) for part in net.parts(point)]
    counted = all(part.gflops is not None for part, _ in parts)
    uncounted: dict[str, int] = {}
    for part, times in parts:
        for operator, count in part.uncounted.items():
            uncounted[operator] = uncounted.get(operator, 0) + times * count
    return Complexity(
        params=sum(parameter.numel() for parameter in parameters_of(net, point)),
        gflops=sum(part.gflops * times for part, times in parts) if counted else None,
        measured_at='; '.join(dict.fromkeys(part.measured_at for part, _ in parts)),
        uncounted=dict(sorted(uncounted.items())),
        note=' '.join(dict.fromkeys(part.note for part, _ in parts if part.note)))


def _products(net: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Floating-point operations of the convolutions and matrix products alone, by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter:
        net(*inputs)
    return counter.get_total_flops()
