"""The table of costs: counted on the meta device, of parts that the network says."""

from __future__ import annotations

import torch

from scripts import latent_costs
from stochastic_refine.archs import build_arch

from .tiny_diffusion import SIZE, SMALL


def test_row_of_a_tiny_system() -> None:
    options = {**SMALL, 'base_size': SIZE, 'attention_window': None}
    found = latent_costs.row('tiny', latent_costs.System(options, 'DeblurDiff'))
    net = build_arch(options)
    total = sum(parameter.numel() for parameter in net.parameters())
    trained = sum(parameter.numel() for part in (net.kpn, net.controlnet) for parameter in part.parameters())
    assert (found['params'], found['trained'], found['published params']) == (total / 1e6, trained / 1e6, 1845)
    assert found['step, bf16, checkpointed'] < found['step, bf16'] and found['restore, bf16'] == found['restore, float32'] / 2
    assert found['TFLOPs 1280x720'] > 1e-3 * found['GMACs 512x512 without attention']
    assert latent_costs.table([found, {'system': 'other'}]).splitlines()[-1].startswith('| other | - |')


def test_attention_is_counted_and_holds_no_matrix() -> None:
    q, v = torch.zeros(1, 2, 100, 8, device='meta'), torch.zeros(1, 2, 100, 8, device='meta')
    with latent_costs.fused_attention():
        latent_costs.Fused.operations = 0
        held = latent_costs.peak(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, v))
    assert latent_costs.Fused.operations == 2 * 2 * (2 * 100 * 100 * 8)
    assert held == 4 * q.numel()
