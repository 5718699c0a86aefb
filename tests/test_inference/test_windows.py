"""WindowedNet: where windows lie, what each sees, and how overlaps are averaged."""

import pytest
import torch

from stochastic_refine.archs import PredictRefineNet
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.tiling import WindowedNet


class WindowMean(torch.nn.Module):
    """Gives every pixel the mean of all that it was given, as instance norm would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((-2, -1), keepdim=True).expand_as(x) * self.weight


def test_windows_of_a_gopro_frame() -> None:
    net = WindowedNet(WindowMean(), 256)
    assert net.starts(1280) == [0, 256, 512, 768, 1024]
    assert net.starts(720) == [0, 232, 464]
    assert net.calls(720, 1280) == 15


@pytest.mark.parametrize('side', [1, 15, 16, 17, 31, 32, 33, 47, 100, 1000])
def test_few_windows_cover_a_side_evenly(side: int) -> None:
    starts = WindowedNet(WindowMean(), 16).starts(side)
    assert starts[0] == 0 and max(starts[-1], 0) + min(16, side) == side
    assert all(0 < b - a <= 16 for a, b in zip(starts, starts[1:]))
    assert len(starts) <= -(-side // 16)


def test_a_pointwise_network_gives_the_same_as_on_the_whole() -> None:
    net = torch.nn.Conv2d(3, 5, 1)
    x = torch.rand(2, 3, 50, 37)
    torch.testing.assert_close(WindowedNet(net, 16)(x), net(x))


def test_overlaps_are_averaged() -> None:
    ramp = torch.arange(10.0).expand(1, 1, 4, 10)  # windows of 6 at 0 and 4, the whole height of 4
    result = WindowedNet(WindowMean(), 6)(ramp)
    assert result[0, 0, 0].tolist() == [2.5] * 4 + [4.5] * 2 + [6.5] * 4
    torch.testing.assert_close(WindowedNet(WindowMean(), 99)(ramp), torch.full_like(ramp, 4.5))


def test_the_restorer_windows_what_is_deterministic() -> None:
    ramp = (torch.arange(10.0) / 10).expand(3, 4, 10)
    calls = []
    restorer = Restorer(WindowMean(), tile=1, window=6, on_call=lambda *progress: calls.append(progress))
    image = restorer.restore(ramp, OperatingPoint()).image
    torch.testing.assert_close(image[0, 0], torch.tensor([0.25] * 4 + [0.45] * 2 + [0.65] * 4))
    assert calls == [(1, 2), (2, 2)]
    assert Restorer(WindowMean()).restore(ramp, OperatingPoint()).image.unique().numel() == 1


def test_the_restorer_windows_the_predictor_but_not_the_denoiser() -> None:
    part = {'type': 'RefineUNet', 'base_channels': 4, 'num_res_blocks': 1, 'channel_mults': [1, 2]}
    torch.manual_seed(0)
    net = PredictRefineNet(part, {**part, 'in_channels': 6, 'noise_conditioned': True})
    net.predictor = WindowMean()
    seen = []
    net.denoiser.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    lq = torch.rand(3, 20, 36)
    calls = []
    restorer = Restorer(net, tile=None, window=20, on_call=lambda *progress: calls.append(progress))
    result = restorer.restore(lq, OperatingPoint(steps=2))
    torch.testing.assert_close(result.initial[:, 0, 0], lq[:, :, :20].mean((1, 2)))
    torch.testing.assert_close(restorer.predict(lq), result.initial)
    assert seen == [(1, 3, 20, 36)] * 2 and (4, 4) in calls
