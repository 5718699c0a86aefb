"""ResShift's parts as :mod:`check_parity` calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stochastic_refine.latent.resshift import ResShiftUNet, ResShiftVQ
from stochastic_refine.latent.resshift.shifting import Shifting

Meta = Mapping[str, Any]


def settings(config: Meta, meta: Meta, *others: str) -> dict[str, Any]:
    """The published settings of a case without those that are the same in all of them."""
    return {key: value for key, value in {**config, **meta['build']}.items() if key not in others}


class PublishedUNet:
    """The U-Net, called as ``net(x, t, lq)``."""

    weights = None

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return ResShiftUNet(**settings(layout['config'], meta, 'attention_resolutions', 'conv_resample', 'dims', 'use_fp16',
                                       'use_scale_shift_norm', 'resblock_updown', 'cond_lq', 'lq_size'))

    def params(self, net: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        return {'out': net(inputs['x'], inputs['t'], inputs['lq'])}


class PublishedVQ(PublishedUNet):
    """The autoencoder, and what goes on inside it."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        config = {**layout['config'], **meta['build']}
        inner = settings(config['ddconfig'], {'build': {}}, 'double_z', 'resolution', 'attn_resolutions', 'dropout',
                         'padding_mode')
        return ResShiftVQ(config['embed_dim'], config['n_embed'], **inner)

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        z = net.encode(inputs['x'])
        quantised, indices = net.quantize(z)
        return {'encode': z, 'indices': indices, 'quantised': quantised, 'decode': net.decode(z),
                'decode_not_quantised': net.decode(z, quantise=False)}


class PublishedShifting(PublishedUNet):
    """The diffusion, which has no weights: each step's state, what the network would see, and the way back."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        config = {**layout['config'], **meta['build']}
        net = nn.Module()
        power = config['schedule_kwargs']['power']
        net.shifting = Shifting(config['steps'], config['min_noise_level'], config['etas_end'], power, config['kappa'])
        return net

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        shifting, steps = net.shifting, torch.arange(net.shifting.steps)
        x0, y, noise = (inputs[name] for name in ('x0', 'y', 'noise'))
        states = [shifting.shifted(x0, y, noise, t[None].expand(len(x0))) for t in steps]
        posteriors = [shifting.posterior(int(t)) for t in steps]
        variances = torch.tensor([variance for _, _, variance in posteriors])
        clipped = torch.cat([variances[1:2], variances[1:]]).log()
        means = [c_t * x_t + c_0 * x0 for x_t, (c_t, c_0, _) in zip(states, posteriors)]
        return {'q_sample': torch.stack(states), 'posterior_mean': torch.stack(means), 'posterior_variance': variances,
                'scaled_input': torch.stack([shifting.scaled(x_t, t[None]) for x_t, t in zip(states, steps)]),
                'posterior_log_variance_clipped': clipped, 'prior_sample': shifting.start(y, noise),
                'sqrt_etas': shifting.sqrt_etas.float()}


NETWORKS = {'ResShift-UNetModelSwin': PublishedUNet(), 'ResShift-VQ': PublishedVQ(), 'ResShift-diffusion': PublishedShifting()}
