"""EVSSM's scan against the recurrence as written, and its windows; layout and output are in test_parity.py."""

from __future__ import annotations

import pytest
import torch

from stochastic_refine.archs import EVSSM
from stochastic_refine.archs.selective_scan import plain_scan, selective_scan


@pytest.mark.parametrize('length', [1, 7, 64, 101])  # one chunk of one step; several, the last one full, and not
def test_parallel_scan_and_its_gradients_are_those_of_the_recurrence(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, length, 5), (2, length, 5), (5, 3), (2, length, 3), (2, length, 3), (5, )]
    u, dt, A, B, C, D, weights = (torch.randn(shape, generator=generator, dtype=torch.float64)
                                  for shape in [*shapes, (2, length, 5)])
    given = [each.requires_grad_() for each in (u, 3 * dt.abs(), -5 * A.abs(), B, C, D)]
    outputs = [scan(*given) for scan in (selective_scan, plain_scan)]
    gradients = [torch.autograd.grad((y * weights).sum(), given) for y in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_scan_of_decays_beyond_float32_stays_finite() -> None:
    """A form that divides by decays, as the usual closed one does, overflows here."""
    u, B = torch.ones(1, 400, 2), torch.ones(1, 400, 3)
    given = (u, 50 * u, -torch.ones(2, 3), B, B, torch.zeros(2))
    torch.testing.assert_close(selective_scan(*given), plain_scan(*given))


def test_windows_are_scanned_one_by_one_in_evaluation_only() -> None:
    torch.manual_seed(0)
    net = EVSSM(dim=16, num_blocks=[2, 2, 2], windows=[16, 8, 4]).eval()
    whole = EVSSM(dim=16, num_blocks=[2, 2, 2], windows=None).eval()
    whole.load_state_dict(net.state_dict())
    lq = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (net(lq) - whole(lq)).abs().max() > 1e-4
        assert torch.equal(net(lq[..., :16, :16]), whole(lq[..., :16, :16]))  # as large as a window, and no larger
        assert torch.equal(net.train()(lq), whole.train()(lq))
        assert net(lq[..., :3, :5]).shape == (1, 3, 3, 5)


def test_blocks_that_would_leave_the_map_turned_are_refused() -> None:
    with pytest.raises(ValueError, match='num_blocks must be even'):
        EVSSM(dim=16, num_blocks=[2, 3, 2])
