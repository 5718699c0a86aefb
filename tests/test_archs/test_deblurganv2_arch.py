"""DeblurGAN-v2's statistics at test time; the published layout and outputs are in test_parity.py."""

from __future__ import annotations

import torch

from stochastic_refine.archs import DeblurGANv2


def test_evaluation_uses_the_image_and_leaves_the_buffers_alone() -> None:
    torch.manual_seed(0)
    net = DeblurGANv2('mobilenet', image_statistics=True)
    x = torch.rand(1, 3, 64, 96)
    padded = torch.full((1, 3, 96, 128), 0.5)  # to the next multiple, although it is one already
    padded[..., :64, :96] = x
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        evaluated = net.eval()(x)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        trained = net.train()(padded)[..., :64, :96]
    assert torch.equal(evaluated, trained)
    assert not torch.equal(net.smooth[1].running_mean, before['smooth.1.running_mean'])


def test_padding_is_mid_grey_at_the_right_and_bottom() -> None:
    torch.manual_seed(0)
    net = DeblurGANv2('mobilenet').eval()
    x = torch.rand(1, 3, 65, 40)
    padded = torch.full((1, 3, 96, 64), 0.5)
    padded[..., :65, :40] = x
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(padded)[..., :65, :40])


def test_evaluation_gives_each_image_of_a_batch_its_own_statistics() -> None:
    torch.manual_seed(0)
    net = DeblurGANv2('mobilenet', image_statistics=True)
    x = torch.rand(2, 3, 64, 64) * torch.tensor([1, 0.1]).view(2, 1, 1, 1)
    with torch.no_grad():
        shared = net.train()(torch.nn.functional.pad(x, (0, 32, 0, 32), value=0.5))[..., :64, :64]
        batched, singles = net.eval()(x), torch.cat([net(image) for image in x.split(1)])
        assert torch.equal(batched, singles)
        assert not torch.allclose(batched, shared, atol=1e-3)  # training shares them; else this test would prove nothing
