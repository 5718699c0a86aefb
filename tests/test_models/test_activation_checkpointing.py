"""Activation checkpointing: the same gradients, bit for bit, from blocks that run twice and keep little."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import unet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import spectral_norm

from stochastic_refine.archs.build import build_arch
from stochastic_refine.checkpoints import read_checkpoint
from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr

prepare_basicsr()
from stochastic_refine.models.activation_checkpointing import checkpoint_activations  # noqa: E402


class DrawingBlock(nn.Module):
    """All that a second run could spoil: random numbers, statistics, a buffer that the weights depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(3, 3, 3, padding=1))
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, *, gain: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.drop(self.norm(self.conv(x)).relu() * torch.rand_like(x))
        return x + (h if gain is None else gain * h), {'h': h}


class ThirdPartyNet(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.blocks = nn.ModuleList(DrawingBlock() for _ in range(3))
        self.tail = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for block in self.blocks:
            x, extra = block(x, gain=self.gain)
            total = total + extra['h']
        return self.tail(x) + total


NETWORKS = {
    'RefineUNet': lambda: build_arch(unet()),
    'PredictRefineNet': lambda: build_arch({'type': 'PredictRefineNet', 'predictor': unet(),
                                            'denoiser': unet(in_channels=6, noise_conditioned=True)}),
    'ThirdPartyNet': ThirdPartyNet,
}


def images(side: int = 16) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def train_step(net: nn.Module) -> list[Tensor]:
    """Gradients and buffers after two parts of a batch."""
    torch.manual_seed(1)
    net.zero_grad()
    for part in (images(), images().flip(0)):
        output = net(part, gt=part.sqrt())['noise_prediction'] if type(net).__name__ == 'PredictRefineNet' else net(part)
        output.square().mean().backward()
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None] + [b.clone() for b in net.buffers()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name, blocks', [
    ('RefineUNet', {'ResidualBlock': 10}),
    ('PredictRefineNet', {'ResidualBlock': 20}),
    ('ThirdPartyNet', {'DrawingBlock': 3}),
])
def test_gradients_and_buffers_are_the_same_bit_for_bit(name, blocks, precision):
    torch.manual_seed(0)
    plain = NETWORKS[name]()
    net = copy.deepcopy(plain)
    assert checkpoint_activations(net, True) == blocks
    with torch.autocast('cpu', precision, enabled=precision != torch.float32):
        assert equal(train_step(net), train_step(plain))
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]


def kept_bytes(net: nn.Module) -> int:
    """Bytes that a call keeps for the backward pass, besides the blocks' inputs."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
        net(images())
    return sum(kept)


def test_blocks_keep_little_and_run_again_only_where_gradients_are_asked_for():
    net = build_arch(unet())
    before = kept_bytes(net)
    checkpoint_activations(net, ['ResidualBlock'])
    assert kept_bytes(net) < before / 4
    calls = []
    net.down[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    net(images()).mean().backward()
    assert len(calls) == 2
    with torch.no_grad():
        net(images())
    assert len(calls) == 3


def test_a_copy_has_blocks_and_gradients_of_its_own():
    net = build_arch(unet())
    checkpoint_activations(net, True)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.down[0].conv1.weight.zero_()
    assert not torch.equal(twin(images()), net(images()))
    twin(images()).mean().backward()
    assert kept_bytes(twin) == kept_bytes(net)
    assert all(p.grad is None for p in net.parameters()) and all(p.grad is not None for p in twin.parameters())


def test_blocks_of_any_depth_can_be_named():
    net = ThirdPartyNet()
    assert checkpoint_activations(net, ['Dropout', 'DrawingBlock']) == {'DrawingBlock': 3, 'Dropout': 3}
    torch.manual_seed(0)
    plain = ThirdPartyNet()
    plain.load_state_dict(net.state_dict())
    assert equal(train_step(net), train_step(plain))


def test_wrong_settings_are_named(build_model, restoration_options):
    for setting, fragment in (
        (['ResBlock'], "activation_checkpointing: RefineUNet has no module of class 'ResBlock'; did you mean ResidualBlock?"),
        ('ResidualBlock', 'activation_checkpointing must be true, false or a list'),
        (3, 'activation_checkpointing must be'),
    ):
        restoration_options['train']['activation_checkpointing'] = setting
        with pytest.raises(InputError) as caught:
            build_model(restoration_options)
        assert fragment in str(caught.value)
    with pytest.raises(InputError, match='Sequential has no repeated blocks'):
        checkpoint_activations(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), True)


def test_a_training_with_everything_is_the_same_with_and_without(build_model, refine_options, tmp_path):
    saved = []
    for setting in (None, True):
        refine_options['train']['activation_checkpointing'] = setting
        model = build_model(refine_options)
        for iteration in (1, 2):
            model.feed_data({'lq': images(32), 'gt': images(32).sqrt()})
            model.optimize_parameters(iteration)
        model.save(0, 2)
        path = str(tmp_path / 'experiments/tiny/models/net_g_2.pth')
        saved.append([read_checkpoint(path, prefer=key).params for key in ('params', 'params_ema')])
    assert kept_bytes(model.net_g.predictor) < kept_bytes(model.net_g_ema.predictor) / 4
    for plain, recomputed in zip(*saved):
        assert plain.keys() == recomputed.keys()
        assert equal(list(plain.values()), list(recomputed.values()))


def two_processes(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = build_arch(unet())
        wrapped = DistributedDataParallel(net)
        if recompute:
            checkpoint_activations(net, True)
        for i, part in enumerate((images() + rank, images() - rank)):  # as with `accumulate`
            with torch.enable_grad() if i else wrapped.no_sync():
                wrapped(part).square().mean().backward()
        results.append([parameter.grad for parameter in net.parameters()])
    assert equal(*results)
    torch.save(results[0], folder / f'{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_same_gradients(tmp_path):
    mp.spawn(two_processes, (tmp_path, ), nprocs=2)
    assert equal(*(torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2)))
