"""Restorer and tiling: exact tiles, repeatable samples, averages and standard deviations that are what they say."""

import copy
import functools

import numpy as np
import pytest
import torch

from stochastic_refine.archs import PredictRefineNet, RefineUNet
from stochastic_refine.errors import InputError
from stochastic_refine.inference import restorer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.tiling import TiledNet, halo_of


@pytest.fixture(scope='module')
def net() -> PredictRefineNet:
    """A tiny untrained pair."""
    torch.manual_seed(0)
    part = {'type': 'RefineUNet', 'base_channels': 4, 'num_res_blocks': 1, 'channel_mults': [1, 2]}
    return PredictRefineNet(part, {**part, 'in_channels': 6, 'noise_conditioned': True})


POINT = OperatingPoint(steps=3, final_variance=0.5, num_samples=3)


@pytest.mark.parametrize('size', [(150, 131), (97, 200)])
def test_tiled_equals_whole(net: PredictRefineNet, size: tuple[int, int]) -> None:
    lq = torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    whole = Restorer(net, tile=None).restore(lq, POINT, keep_samples=True)
    tiled = Restorer(net, tile=32)
    assert TiledNet(net.denoiser, 32).calls(*size) > 4  # it really is cut
    result = tiled.restore(lq, POINT, keep_samples=True)
    assert result.tiling is None
    for a, b in ((whole.samples, result.samples), (whole.initial, result.initial), (whole.std, result.std)):
        assert (a - b).abs().max() < 1e-5


def test_prepared_samples_are_those_of_plain_calls(net: PredictRefineNet) -> None:
    """In a batch, and in several, whole and tiled; the noise levels are embedded once for all of it."""

    class Plain(torch.nn.Module):
        """A denoiser that prepares nothing."""

        def __init__(self, denoiser: torch.nn.Module) -> None:
            super().__init__()
            self.denoiser = denoiser

        def forward(self, x: torch.Tensor, noise_level: torch.Tensor) -> torch.Tensor:
            return self.denoiser(x, noise_level)

    lq = torch.rand(3, 121, 40, generator=torch.Generator().manual_seed(1))
    assert TiledNet(net.denoiser, 16).calls(121, 40) > 2
    plain = copy.deepcopy(net)
    plain.denoiser = Plain(plain.denoiser)
    expected = Restorer(plain, tile=None).restore(lq, POINT, keep_samples=True).samples
    embedded = []
    handle = net.denoiser.noise_embedding.register_forward_hook(lambda *call: embedded.append(call))
    for tile in (None, 16):
        one_by_one = Restorer(net, tile=tile)
        one_by_one._batch = lambda lq, point: 1
        for restoring in (Restorer(net, tile=tile), one_by_one):
            embedded.clear()
            samples = restoring.restore(lq, POINT, keep_samples=True).samples
            torch.testing.assert_close(samples, expected, rtol=0, atol=1e-5)
            assert len(embedded) == 1
    handle.remove()


@pytest.mark.slow
def test_compiled_sampling_is_one_graph_and_leaves_the_network_alone(net: PredictRefineNet, monkeypatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend=backend, fullgraph=True))
    for precision, tolerance in (('float32', 1e-6), ('bfloat16', 1e-2)):
        for seed in range(2):  # the second image finds the graph of the first
            lq = torch.rand(3, 20, 17, generator=torch.Generator().manual_seed(seed))
            compiled, plain = (Restorer(net, precision, compile=compile).restore(lq, POINT, keep_samples=True).samples
                               for compile in (True, False))
            torch.testing.assert_close(compiled, plain, rtol=0, atol=tolerance)
    assert len(graphs) == 2
    assert net.denoiser._compiled_call_impl is None


def test_halo_is_needed(net: PredictRefineNet) -> None:
    """In float64 the full halo is exact to rounding and half of it is not, so the test above could fail."""
    predictor = copy.deepcopy(net.predictor).double()
    lq = torch.rand(1, 3, 150, 131, dtype=torch.float64)
    tiled = TiledNet(predictor, 32)
    with torch.inference_mode():
        whole = predictor(lq)
        assert (tiled(lq) - whole).abs().max() < 1e-14
        tiled.halo = halo_of(predictor) // 4 * 2
        assert (tiled(lq) - whole).abs().max() > 1e-12


def test_paper_nets_need_288_pixels() -> None:
    with torch.device('meta'):
        assert halo_of(RefineUNet()) == 288


def test_sample_depends_on_its_seed_alone(net: PredictRefineNet) -> None:
    lq = torch.rand(3, 20, 17)
    restoring = Restorer(net)
    together = restoring.restore(lq, POINT, keep_samples=True).samples
    for i in range(3):
        alone = restoring.restore(lq, OperatingPoint(steps=3, final_variance=0.5, seed=i)).image
        torch.testing.assert_close(alone, together[i], rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().mean() > 1e-3


def test_mean_and_std_are_those_of_the_samples(net: PredictRefineNet) -> None:
    lq = torch.rand(3, 20, 17)
    point = OperatingPoint(steps=2, final_variance=0.5, num_samples=11, average=True)
    result = Restorer(net).restore(lq, point, keep_samples=True)
    torch.testing.assert_close(result.image, result.samples.mean(0))
    torch.testing.assert_close(result.std, result.samples.std(0))
    streamed = Restorer(net).restore(lq, point)
    assert streamed.samples is None
    torch.testing.assert_close(streamed.std, result.std)


def test_running_means_are_those_of_restore(net: PredictRefineNet) -> None:
    lq = torch.rand(3, 20, 17)
    restoring = Restorer(net)
    calls = []
    restoring.on_call = lambda done, total: calls.append((done, total))
    means = dict(restoring.running_means(lq, POINT, [5, 1, 2, 5]))
    assert list(means) == [1, 2, 5]
    assert calls[-1] == (10, 10)  # the prediction once, and three batches of three steps
    restoring.on_call = None
    for count, image in means.items():
        averaged = restoring.restore(lq, OperatingPoint(steps=3, final_variance=0.5, num_samples=count, average=True)).image
        torch.testing.assert_close(image, averaged, rtol=0, atol=1e-6)
    assert torch.equal(means[1], restoring.restore(lq, OperatingPoint(steps=3, final_variance=0.5)).image)
    given = dict(restoring.running_means(lq, POINT, [2], restoring.predict(lq)))
    torch.testing.assert_close(given[2], means[2], rtol=0, atol=1e-6)


def test_running_means_leave_the_callers_code_alone(net: PredictRefineNet) -> None:
    """Between two means the network is as it was and gradients are recorded."""
    net.train()
    for _ in Restorer(net).running_means(torch.rand(3, 16, 16), POINT, [1, 2]):
        assert net.training and not torch.is_inference_mode_enabled()
    net.eval()
    with pytest.raises(InputError, match='Conv2d is deterministic'):
        next(Restorer(torch.nn.Conv2d(3, 3, 1)).running_means(torch.rand(3, 8, 8), POINT, [1]))


def test_network_restores_like_the_restorer(net: PredictRefineNet) -> None:
    """``net(lq)``, as any codebase calls it, walks the same path."""
    lq = torch.rand(1, 3, 24, 24)
    net.sampling.update(steps=4, final_variance=0.3, seed=5)
    with torch.inference_mode():
        plain = net(lq)
    point = OperatingPoint(steps=4, final_variance=0.3, seed=5)
    torch.testing.assert_close(plain[0].clamp(0, 1), Restorer(net).restore(lq[0], point).image, rtol=0, atol=1e-6)


def test_given_initial_is_used_and_mode_restored(net: PredictRefineNet) -> None:
    lq = torch.rand(3, 16, 16)
    restoring = Restorer(net)
    net.train()
    initial = restoring.predict(lq)
    calls = []
    restoring.on_call = lambda done, total: calls.append((done, total))
    a = restoring.restore(lq, POINT, initial=initial).image
    assert calls[-1] == (3, 3)  # three samples in one batch, and no predictor call
    b = restoring.restore(lq, POINT).image
    assert calls[-1] == (4, 4)
    torch.testing.assert_close(a, b)
    assert net.training
    net.eval()


class Brightness(torch.nn.Module):
    """A network that sees the whole image: it adds the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2 + self.gain * x.mean((1, 2, 3), keepdim=True) / 2


def test_networks_that_see_the_whole_image_are_whole_or_blended() -> None:
    """Never cut unless asked to; then the seams are blended and the result says so."""
    net = Brightness()
    ramp = torch.linspace(0, 1, 300)[None, :, None].expand(3, 300, 200).contiguous()
    whole = Restorer(net).restore(ramp, POINT)
    assert whole.tiling is None and whole.std is None and whole.initial is None
    torch.testing.assert_close(whole.image, ramp / 2 + 0.25)
    calls = []
    tiled = Restorer(net, tile=64, on_call=lambda done, total: calls.append((done, total))).restore(ramp, POINT)
    assert tiled.tiling == 'Brightness, which sees the whole image, in blended tiles of 64 pixels'
    assert calls[-1] == (24, 24)  # 6 x 4 tiles that overlap by a quarter or more
    steps = tiled.image[0].diff(dim=0)
    assert (tiled.image - whole.image).abs().max() > 0.1  # each tile adds its own mean
    assert steps.min() >= 0 and steps.max() < 3 / 300  # and yet there is no seam
    still = torch.nn.Conv2d(3, 3, 1)
    torch.nn.init.dirac_(still.weight)
    torch.nn.init.zeros_(still.bias)
    torch.testing.assert_close(Restorer(still, tile=50).restore(ramp, POINT).image, ramp)


def test_what_is_cut_depends_on_the_devices_memory_alone(net: PredictRefineNet, monkeypatch) -> None:
    lq = torch.rand(3, 400, 700)
    asked: list[int | None] = []
    monkeypatch.setattr(restorer, 'TiledNet', lambda net, tile, on_call: asked.append(tile) or TiledNet(net, tile, on_call))
    for gigabytes, processes in ((64, 1), (64, 8), (0.02, 1), (0.02, 8)):
        monkeypatch.setattr(restorer, 'total_memory', lambda device, gigabytes=gigabytes: int(gigabytes * 2**30))
        monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
        Restorer(net.predictor, tile='auto').restore(lq, POINT)
    assert asked[:2] == [None, None] and asked[2] == asked[3] < 400
    with pytest.raises(InputError, match='700x400 takes about .* GiB in RefineUNet as a whole, of the 0.0 GiB.*tile'):
        Restorer(net.predictor).restore(lq, POINT)


def test_a_point_on_a_finer_grid_visits_some_of_its_levels() -> None:
    fine = OperatingPoint('ddim', steps=12, final_variance=0.3).schedule.alpha_bars
    point = OperatingPoint('ddim', steps=4, grid_steps=12, final_variance=0.3)
    torch.testing.assert_close(point.schedule.alpha_bars, fine[[2, 5, 8, 11]])
    assert OperatingPoint.from_options(point.as_options()) == point and 'grid_steps' not in POINT.as_options()


@pytest.mark.parametrize('options, word', [
    ({'stesp': 3}, 'steps'),
    ({'steps': 0}, 'steps'),
    ({'sampler': 'dimm'}, 'ddim'),
    ({'final_variance': 1.5}, 'final_variance'),
    ({'steps': 4, 'grid_steps': 6}, 'grid_steps must be a multiple of steps'),
    ({'steps': 4, 'grid_steps': 2.0}, 'grid_steps'),
    ({'eta': -1}, 'eta'),
    ({'seed': 'x'}, 'seed'),
    ({'steps': 3000, 'final_variance': 0.2}, 'final_variance 0.2 over 3000 steps leaves a signal of 1e-'),
    ({'steps': 2, 'grid_steps': 5000, 'final_variance': 0.5}, 'lower final_variance'),
    ({'num_samples': True}, 'num_samples'),
])
def test_bad_operating_points_are_named(options: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        OperatingPoint.from_options(options, 'val')


def test_low_precision_stays_close(net: PredictRefineNet) -> None:
    lq = torch.rand(3, 32, 32)
    point = OperatingPoint(steps=3, final_variance=0.5, clamp=True)
    exact, fast = (Restorer(net, precision=p).restore(lq, point).image.numpy() for p in ('float32', 'bfloat16'))
    assert 0 < np.abs(exact - fast).max() < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


@pytest.mark.parametrize('sampler', ['ancestral', 'ddim', 'dpmpp_2m'])
@pytest.mark.parametrize('steps, variance', [(1, 1e-6), (1, 1 - 1e-12), (1, 0.999), (2, 0.999999), (500, 0.5)])
def test_schedules_at_the_edge_give_pictures(net: PredictRefineNet, sampler: str, steps: int, variance: float) -> None:
    point = OperatingPoint(sampler, steps=steps, final_variance=variance, clamp=True)
    assert Restorer(net).restore(torch.rand(3, 8, 8), point).image.isfinite().all()


def test_what_is_not_finite_is_no_picture(net: PredictRefineNet) -> None:
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken.predictor.conv_out.bias.fill_(float('nan'))
    lq = torch.rand(3, 16, 16)
    for call in (lambda: Restorer(broken).restore(lq, POINT), lambda: Restorer(broken).predict(lq),
                 lambda: next(Restorer(broken).running_means(lq, POINT, [1])),
                 lambda: Restorer(broken.predictor).restore(lq, POINT)):
        with pytest.raises(InputError, match='makes values that are not finite'):
            call()
