"""The published systems on Stable Diffusion as :mod:`check_parity` calls them: names of single files, settings of LDM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from stochastic_refine.archs import build_arch
from stochastic_refine.diffusion import forward_marginal, posterior, r0_from_eps
from stochastic_refine.latent.deblurdiff.deblurdiff_arch import DeblurDiff, KernelControlledUNet
from stochastic_refine.latent.deblurdiff.eac import eac
from stochastic_refine.latent.deblurdiff.lkpn import LKPN
from stochastic_refine.latent.diffbir.published import bsrnet_params
from stochastic_refine.latent.extra import require
from stochastic_refine.latent.names import autoencoder_params, open_clip_params, split, unet_params
from stochastic_refine.latent.pasd.published import is_trained
from stochastic_refine.latent.stable_diffusion import Decoder, Encoder, build_control, build_unet, configs, unet_config
from stochastic_refine.latent.windows import attend_in_windows

Meta = Mapping[str, Any]
SWINIR = yaml.safe_load((Path(__file__).resolve().parents[1] / 'options/latent/train_diffbir_stage1.yml').read_text())


def ldm_unet(config: Meta, **changes: Any) -> dict[str, Any]:
    """Our settings of a U-Net from LDM's."""
    return unet_config(config['model_channels'], config['channel_mult'], config['num_head_channels'], config['context_dim'],
                       **{'in_channels': config['in_channels'], 'out_channels': config.get('out_channels', 4), **changes})


def windowed(net: nn.Module, meta: Meta) -> nn.Module:
    """The network with the attention windows that a case names: in its settings, or in its file's name."""
    given = [value for block in (meta.get('build', {}), meta.get('kw', {})) for key, value in block.items() if 'win' in key]
    named = re.search(r'win(\d+)', meta.get('case', ''))
    window = given[0] if given else int(named[1]) if named else 64
    return attend_in_windows(net, window if isinstance(window, int) else window[0])


class PublishedPart:
    """A part of Stable Diffusion's kind; of it only names and shapes are known."""

    weights = None

    def __init__(self, kind: str = '') -> None:
        self.kind = kind

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        config = layout['config']
        if self.kind == 'unet':
            return build_unet(ldm_unet(config))
        if self.kind == 'controlnet':
            return build_control(ldm_unet(config), config['in_channels'] + config['hint_channels'])
        if self.kind == 'vae':
            channels = layout['tensors']['encoder.conv_in.weight'][0][0]  # a case's may be scaled down
            return require('diffusers').AutoencoderKL(**configs(vae_channels=channels,
                                                                vae_mults=config['ddconfig']['ch_mult']).vae)
        transformers, text = require('transformers'), config['text_cfg']
        return transformers.CLIPTextModel(transformers.CLIPTextConfig(**configs(
            context=text['width'], text_layers=text['layers'] - 1, text_heads=text['heads']).text))

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.kind == 'vae':
            return autoencoder_params(weights)
        return open_clip_params(split(weights, ['model.'])['model.']) if self.kind == 'clip' else unet_params(weights)


class PublishedAutoencoder(PublishedPart):
    """The autoencoder."""

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        mean, logvar = Encoder(net)(inputs['x']).chunk(2, dim=1)
        return {'mean': mean, 'logvar': logvar, 'decode': Decoder(net)(mean * net.config.scaling_factor)}


class PublishedEAC(PublishedPart):
    """The convolution with kernels of each pixel's own, which are added to the map."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return nn.Identity()

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        return {'out': inputs['x'] + eac(inputs['x'], inputs['kernel'])}


class PublishedDiffusion(PublishedEAC):
    """The noise schedule, spaced, and the equations."""

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        whole = DeblurDiff.schedule
        spaced, steps = whole.spaced(meta['kw'].get('steps', 50))
        alpha_bars = spaced.alpha_bars
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]])
        c_0, c_t, variance = (torch.tensor(values, dtype=torch.float64) for values in zip(*(
            posterior(*numbers) for numbers in zip(spaced.alphas.tolist(), alpha_bars.tolist(), before.tolist()))))
        x0, noise, t, index = (inputs[name] for name in ('x0', 'noise', 't', 'index'))

        def at(table: Tensor) -> Tensor:
            return table[index].view(-1, 1, 1, 1)

        noisy = forward_marginal(x0, noise, whole.alpha_bars[t].view(-1, 1, 1, 1))
        found = r0_from_eps(noisy.double(), noise.double(), at(alpha_bars))
        return {
            'timesteps': torch.tensor(steps), 'sqrt_recip_alphas_cumprod': alpha_bars**-0.5,
            'sqrt_recipm1_alphas_cumprod': (1 / alpha_bars - 1)**0.5, 'posterior_variance': variance,
            'posterior_log_variance_clipped': torch.cat([variance[1:2], variance[1:]]).log(),
            'posterior_mean_coef1': c_0, 'posterior_mean_coef2': c_t, 'train_sqrt_alphas_cumprod': whole.alpha_bars**0.5,
            'q_sample': noisy, 'pred_x0': found, 'posterior_mean': at(c_0) * found + at(c_t) * noisy}


def lkpn(config: Meta, meta: Meta) -> LKPN:
    unet = {**config['unet'], **{key: value for key, value in meta.get('build', {}).items() if key in config['unet']}}
    return LKPN(unet['model_channels'], unet['channel_mult'], unet['num_head_channels'], unet['context_dim'],
                meta.get('build', {}).get('kernel_size', config['kernel_size']))


class PublishedLKPN(PublishedPart):
    """The kernels and the deblurred latent."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return windowed(lkpn(layout['config'], meta), meta)

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f'unet.{name}': value for name, value in unet_params(split(weights, ['unet.'])['unet.']).items()}

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        given = [inputs[name] for name in ('c_img', 'x', 't', 'c_txt')]
        return {'kernel': net.kernels(*given), 'out': net(*given)}


class PublishedWiring(PublishedPart):
    """U-Net, ControlNet and LKPN as they work together."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        config = layout['config']
        control = config['controlnet']
        kpn = LKPN(context=config['unet']['context_dim'])
        return windowed(KernelControlledUNet(
            build_unet(ldm_unet(config['unet'])),
            build_control(ldm_unet(control), control['in_channels'] + control['hint_channels']), kpn), meta)

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ours = {'unet.': 'unet.', 'controlnet.': 'control.', 'kpn.unet.': 'kpn.unet.'}
        return {f'{ours[prefix]}{name}': value for prefix, part in split(weights, ours).items()
                for name, value in unet_params(part).items()}

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        noise, deblurred, maps = net.predict(torch.cat([inputs['x'], inputs['c_img']], dim=1), inputs['t'], inputs['c_txt'])
        return {'eps': noise, 'lr_kpn': deblurred, **{f'control_{k}': value[:, :8] for k, value in enumerate(maps)}}


class PublishedDeblurDiff(PublishedPart):
    """The whole released file."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return build_arch({'type': 'DeblurDiff'})

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from stochastic_refine.latent.deblurdiff.published import from_published
        return from_published(weights)


class PublishedFirstStage(PublishedPart):
    """A first stage of DiffBIR's, by its options."""

    def __init__(self, options: Meta) -> None:
        self.options = options

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return build_arch(self.options)

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.options['type'] == 'BSRNet':
            return bsrnet_params(weights)
        return {f"net.{name.replace('conv_first.1.', 'conv_first.')}": value for name, value in weights.items()}


class PublishedIRControlNet(PublishedPart):
    """DiffBIR's second stage."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        return build_control(configs().unet, 8)


class PublishedPASD(PublishedPart):
    """A network of PASD's: the U-Net with what is trained in it, or the ControlNet."""

    def __init__(self, kind: str, light: bool = False, rrdb: bool = False) -> None:
        super().__init__(kind)
        self.light, self.rrdb = light, rrdb

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        net = build_arch({'type': 'PASD', 'light': self.light, 'rrdb': self.rrdb})
        return net.controlnet if self.kind == 'controlnet' else nn.ModuleDict({
            'unet': net.base.unet, 'attention': net.attention})

    def params(self, net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.kind == 'controlnet':
            return dict(weights)
        return {f"{'attention' if is_trained(name) else 'unet'}.{name}": value for name, value in weights.items()}


NETWORKS = {
    'DiffBIR-bsrnet': PublishedFirstStage({'type': 'BSRNet'}),
    'DiffBIR-controlnet': PublishedIRControlNet(),
    'DiffBIR-scunet': PublishedFirstStage({'type': 'SpandrelNet', 'architecture': 'SCUNet', 'network': 'SCUNet'}),
    'DiffBIR-swinir': PublishedFirstStage(SWINIR['network_g']),
    'DeblurDiff-EAC': PublishedEAC(),
    'DeblurDiff-LKPN': PublishedLKPN(),
    'DeblurDiff-VAE-small': PublishedAutoencoder('vae'),
    'DeblurDiff-diffusion': PublishedDiffusion(),
    'DeblurDiff-full-all': PublishedDeblurDiff(),
    'DeblurDiff-full-clip': PublishedPart('clip'),
    'DeblurDiff-full-controlnet': PublishedPart('controlnet'),
    'DeblurDiff-full-unet': PublishedPart('unet'),
    'DeblurDiff-full-vae': PublishedPart('vae'),
    'DeblurDiff-wiring-small': PublishedWiring(),
    'PASD-controlnet': PublishedPASD('controlnet'),
    'PASD-light-controlnet': PublishedPASD('controlnet', light=True),
    'PASD-light-rrdb-controlnet': PublishedPASD('controlnet', light=True, rrdb=True),
    'PASD-light-unet': PublishedPASD('unet', light=True),
    'PASD-rrdb-controlnet': PublishedPASD('controlnet', rrdb=True),
    'PASD-unet': PublishedPASD('unet'),
}
