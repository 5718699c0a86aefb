"""The selective scan of state-space models (Gu and Dao, "Mamba", 2023) in plain PyTorch, parallel over chunks of the sequence.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,    y_t = C_t h_t + D u_t,    h_0 = 0,

with a state h of (D, N) for each sequence. The sequence is cut into about as many chunks as a chunk has steps; each step is
then made in all chunks at once. What one chunk passes on to the next needs no more than its last state, started from zero, and
the product of its decays, which is ``exp(A sum(dt))``: so chunks are walked once for those, and once more from their true
first states. All exponents are at most zero, and the state is never there for all steps at once, so memory stays that of the
sequence. Gradients are those of the same recurrence walked backwards.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Scan sequences; see the module's docstring. On a GPU ``mamba_ssm``'s kernel is used where it is installed.

    Args:
        u, dt: Input and step sizes, the latter above 0, (batch, L, D).
        A: Rates, below 0, (D, N).
        B, C: Input and output maps of each step, (batch, L, N).
        D: Share of the input that goes straight to the output, (D,).

    Returns:
        y, (batch, L, D), in the precision of ``u``; all is computed in float32 or, if ``u`` is that, in float64.
    """
    if u.is_cuda and importlib.util.find_spec('mamba_ssm') is not None:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        u_, dt_, B_, C_ = (each.transpose(1, 2).contiguous() for each in (u, dt, B, C))
        return selective_scan_fn(u_, dt_, A.float(), B_, C_, D.float()).transpose(1, 2)
    # float32 also under autocast, which leaves such elementwise products as they are
    exact, dt, A, B, C, D = (each if each.dtype == torch.float64 else each.float() for each in (u, dt, A, B, C, D))
    y, _ = _scan(exact * dt, dt, A.t(), B, C)
    return (y + D * exact).to(u)


def plain_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written, one step after another: what :func:`selective_scan` is tested against."""
    decays, inputs = torch.exp(dt[..., None] * A), (dt * u)[..., None] * B[:, :, None]
    h, y = torch.zeros_like(decays[:, 0]), []
    for decay, x, c in zip(decays.unbind(1), inputs.unbind(1), C.unbind(1)):
        h = decay * h + x
        y.append((h * c[:, None]).sum(-1))
    return torch.stack(y, dim=1) + D * u


def _chunked(x: Tensor, steps: int) -> Tensor:
    """(batch, L, d) as (steps, batch * chunks, d), padded with zeros, which leave a state as it is."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % steps))
    return x.unflatten(1, (-1, steps)).flatten(0, 1).transpose(0, 1).contiguous()


def _whole(x: Tensor, batch: int, length: int) -> Tensor:
    """The inverse of :func:`_chunked`."""
    return x.transpose(0, 1).unflatten(0, (batch, -1)).flatten(1, 2)[:, :length].contiguous()


def _carry(ends: Tensor, decay: Tensor, batch: int, backwards: bool = False) -> Tensor:
    """What each chunk starts from, given what each would end with from zero, all (batch * chunks, N, D)."""
    ends, decay = (each.unflatten(0, (batch, -1)) for each in (ends, decay))
    starts = torch.zeros_like(ends)
    order = range(ends.shape[1])
    order = list(reversed(order)) if backwards else list(order)
    for before, after in zip(order, order[1:]):
        torch.addcmul(ends[:, before], decay[:, before], starts[:, before], out=starts[:, after])
    return starts.flatten(0, 1)


def _advance(h: Tensor, dt: Tensor, x: Tensor, B: Tensor, A: Tensor, decay: Tensor) -> Tensor:
    """One step of all chunks, in place in ``h``: (M, N, D); ``decay`` is where exp(dt A) is put."""
    torch.mul(dt[:, None], A, out=decay)
    return h.mul_(decay.exp_()).addcmul_(x[:, None], B[:, :, None])


def _steps(length: int) -> int:
    """Steps of a chunk of a sequence."""
    return math.isqrt(max(length - 1, 0)) + 1


# One operator for whoever traces or compiles a network: to them, its loops would be some thousand.
# PyTorch 2.4 cannot read the schema from annotations that are text.
@torch.library.custom_op('stochastic_refine::scan', mutates_args=(),
                         schema='(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C) -> (Tensor, Tensor)')
def _scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y without the straight share, (batch, L, D), and the chunks' first states, (batch * chunks, N, D); A is (N, D)."""
    batch, length, _ = x.shape
    steps = _steps(length)
    x, dt, B, C = (_chunked(each, steps) for each in (x, dt, B, C))
    h = x.new_zeros(x.shape[1], *A.shape)
    decay = torch.empty_like(h)
    for k in range(steps):
        _advance(h, dt[k], x[k], B[k], A, decay)
    starts = _carry(h, torch.exp(dt.sum(0)[:, None] * A), batch)
    h = starts.clone()
    y = torch.empty_like(x)
    for k in range(steps):
        _advance(h, dt[k], x[k], B[k], A, decay)
        torch.sum(torch.mul(h, C[k][:, :, None], out=decay), 1, out=y[k])
    return _whole(y, batch, length), starts


@_scan.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    chunks = -(-x.shape[1] // _steps(x.shape[1]))
    return torch.empty_like(x), x.new_empty(x.shape[0] * chunks, *A.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


@once_differentiable
def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    """The gradients; g, that of the state, obeys ``g_t = C_t y'_t + exp(dt_{t+1} A) g_{t+1}``."""
    x, dt, A, B, C, starts = ctx.saved_tensors
    batch, length, _ = x.shape
    steps = _steps(length)
    x, dt, B, C, dy = (_chunked(each, steps) for each in (x, dt, B, C, dy))
    decay = torch.empty_like(starts)
    states = starts.new_empty(steps + 1, *starts.shape)  # states[k] is that before step k
    states[0] = starts
    for k in range(steps):
        _advance(states[k + 1].copy_(states[k]), dt[k], x[k], B[k], A, decay)

    passed = torch.zeros_like(starts)  # exp(dt A) g of the step after this one
    for k in reversed(range(steps)):
        passed.addcmul_(dy[k][:, None], C[k][:, :, None])
        passed.mul_(torch.mul(dt[k][:, None], A, out=decay).exp_())
    passed = _carry(passed, torch.exp(dt.sum(0)[:, None] * A), batch, backwards=True)

    dx, ddt, dB, dC, dA = (torch.empty_like(each) for each in (x, dt, B, C, A))
    dA.zero_()
    for k in reversed(range(steps)):
        torch.sum(states[k + 1].mul_(dy[k][:, None]), 2, out=dC[k])
        g = passed.addcmul_(dy[k][:, None], C[k][:, :, None])
        torch.sum(torch.mul(g, B[k][:, :, None], out=decay), 1, out=dx[k])
        torch.sum(torch.mul(g, x[k][:, None], out=decay), 2, out=dB[k])
        passed.mul_(torch.mul(dt[k][:, None], A, out=decay).exp_())
        by_exponent = states[k].mul(passed)
        dA.add_((by_exponent * dt[k][:, None]).sum(0))
        torch.sum(by_exponent.mul_(A), 1, out=ddt[k])
    return (*(_whole(each, batch, length) for each in (dx, ddt)), dA, *(_whole(each, batch, length) for each in (dB, dC)))


_scan.register_autograd(_backward, setup_context=_keep)
