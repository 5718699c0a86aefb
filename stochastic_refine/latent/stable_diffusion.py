"""Stable Diffusion's parts from ``diffusers`` and ``transformers``, frozen, and what systems built on it need of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .extra import require
from .windows import attend_in_windows

#: CLIP's tokens for start and end of a text, and the length of all texts.
_START, _END, _TOKENS = 49406, 49407, 77
#: Image pixels per latent pixel along a side.
SCALE = 8


class Configs(NamedTuple):
    """Constructor arguments of ``UNet2DConditionModel``, ``AutoencoderKL`` and ``CLIPTextModel``."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]


def unet_config(channels: int = 320,
                mults: Sequence[int] = (1, 2, 4, 4),
                head_channels: int = 64,
                context: int = 1024,
                in_channels: int = 4,
                out_channels: int = 4,
                heads: int | None = None,
                linear: bool = True) -> dict[str, Any]:
    """A U-Net of Stable Diffusion's kind: transformers at all sizes but the smallest.

    Args:
        channels: At the full size.
        mults: Factors on them, level by level.
        head_channels: Of one attention head.
        context: Channels of the text's tokens.
        in_channels, out_channels: Latent channels.
        heads: Attention heads at every level, in place of ``head_channels``: 8 in Stable Diffusion 1.
        linear: Whether the transformers begin and end with linear layers: not in Stable Diffusion 1.
    """
    widths, last = [channels * mult for mult in mults], len(mults) - 1
    return {'in_channels': in_channels, 'out_channels': out_channels, 'block_out_channels': widths, 'layers_per_block': 2,
            'down_block_types': ['CrossAttnDownBlock2D'] * last + ['DownBlock2D'],
            'up_block_types': ['UpBlock2D'] + ['CrossAttnUpBlock2D'] * last,
            # the number of heads, whatever diffusers calls it
            'attention_head_dim': heads or [max(width // head_channels, 1) for width in widths],
            'cross_attention_dim': context, 'use_linear_projection': linear}


def configs(channels: int = 320,
            mults: Sequence[int] = (1, 2, 4, 4),
            head_channels: int = 64,
            context: int = 1024,
            vae_channels: int = 128,
            vae_mults: Sequence[int] = (1, 2, 4, 4),
            text_layers: int = 23,
            text_heads: int = 16,
            text_activation: str = 'gelu',
            heads: int | None = None,
            linear: bool = True) -> Configs:
    """Stable Diffusion 2.1 base unless told otherwise; its text encoder without the last layer, which is not read."""
    vae = {'block_out_channels': [vae_channels * mult for mult in vae_mults], 'layers_per_block': 2, 'latent_channels': 4,
           'down_block_types': ['DownEncoderBlock2D'] * len(vae_mults),
           'up_block_types': ['UpDecoderBlock2D'] * len(vae_mults), 'sample_size': 512}
    text = {'hidden_size': context, 'intermediate_size': 4 * context, 'num_hidden_layers': text_layers,
            'num_attention_heads': text_heads, 'hidden_act': text_activation, 'projection_dim': 512, 'vocab_size': _END + 1}
    return Configs(unet_config(channels, mults, head_channels, context, heads=heads, linear=linear), vae, text)


#: Arguments of :func:`configs` for Stable Diffusion 1.5.
SD15_SIZE = {'context': 768, 'text_layers': 12, 'text_heads': 12, 'text_activation': 'quick_gelu', 'heads': 8, 'linear': False}


def build_unet(config: Mapping[str, Any]) -> nn.Module:
    """A ``UNet2DConditionModel``."""
    return require('diffusers').UNet2DConditionModel.from_config(dict(config))


def build_text(config: Mapping[str, Any]) -> nn.Module:
    """A ``CLIPTextModel``."""
    transformers = require('transformers')
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**config)).requires_grad_(False).eval()


def build_control(config: Mapping[str, Any], in_channels: int) -> nn.Module:
    """A ControlNet whose first convolution takes the noisy latent and all that it is controlled by.

    Args:
        config: Of the U-Net that it controls.
        in_channels: Of both together.
    """
    cls = require('diffusers').ControlNetModel
    own = {key: value for key, value in config.items() if key in inspect.signature(cls).parameters}
    control = cls.from_config({**own, 'in_channels': in_channels})
    control.controlnet_cond_embedding = nn.Identity()  # the published one is of images, in pixels, and added after it
    return control


def start_from_unet(control: nn.Module, unet: nn.Module) -> None:
    """Give a new ControlNet the U-Net's weights, and zeros where its first convolution has more channels."""
    own, state = control.state_dict(), unet.state_dict()
    shared = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    first = torch.zeros_like(own['conv_in.weight'])
    first[:, :state['conv_in.weight'].shape[1]] = state['conv_in.weight']
    control.load_state_dict({**shared, 'conv_in.weight': first}, strict=False)


def controls(control: nn.Module, x: Tensor, t: Tensor, context: Tensor, image: Tensor | None = None) -> list[Tensor]:
    """What a ControlNet of :func:`build_control` adds to the U-Net's skips, from the largest, and to its middle, the last.

    Args:
        x: (B, C, h, w), all of its input.
        t: Steps, (B,).
        context: The text's tokens, (B or 1, 77, C).
        image: What it reads besides, in pixels, if it does.
    """
    x = x.to(control.dtype)
    image = x.new_zeros(()) if image is None else image.to(x.dtype)
    skips, middle = control(x, t, context.expand(len(x), -1, -1).to(x.dtype), controlnet_cond=image, return_dict=False)
    return [*skips, middle]


def predict_noise(unet: nn.Module, x: Tensor, t: Tensor, context: Tensor, added: Sequence[Tensor] = ()) -> Tensor:
    """The U-Net's prediction, float32, with what :func:`controls` adds; in the precision of its weights.

    Args:
        x: Noisy latent, (B, 4, h, w).
        t: Steps, (B,).
        context: The text's tokens, (B or 1, 77, C).
        added: Of :func:`controls`.
    """
    kind = unet.dtype
    added = [value.to(kind) for value in added]
    extra = {'down_block_additional_residuals': tuple(added[:-1]), 'mid_block_additional_residual': added[-1]} if added else {}
    return unet(x.to(kind), t, context.expand(len(x), -1, -1).to(kind), return_dict=False, **extra)[0].float()


class StableDiffusion(nn.Module):
    """U-Net, autoencoder and text encoder, frozen.

    Args:
        parts: Their settings.
        tokenizer: Folder of the text's tokenizer, which all prompts but the empty one need; None where there is none.
    """

    def __init__(self, parts: Configs, tokenizer: str | None = None) -> None:
        super().__init__()
        self.unet = build_unet(parts.unet)
        self.vae = require('diffusers').AutoencoderKL.from_config(dict(parts.vae))
        self.text = build_text(parts.text)
        self.tokenizer = tokenizer
        self._padding = 0 if parts.unet.get('use_linear_projection') else _END  # of Stable Diffusion 2, and of 1
        self._contexts: dict[tuple[str, torch.device], Tensor] = {}
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> StableDiffusion:
        """Stay in evaluation mode."""
        return super().train(False)

    def economise(self,
                  attention_window: int | None = None,
                  attention_slicing: bool = False,
                  vae_tiling: bool = False,
                  gradient_checkpointing: bool = False) -> StableDiffusion:
        """Spend less memory: see :class:`~stochastic_refine.latent.latent_net.LatentNet`."""
        economise(self.unet, attention_window, attention_slicing, gradient_checkpointing)
        if vae_tiling:
            self.vae.enable_tiling()
        return self

    def context(self, prompt: str, device: torch.device) -> Tensor:
        """The text's tokens as the U-Net reads them, (1, 77, C); computed once per prompt.

        Raises:
            InputError: If there is no tokenizer, which all but the empty text need.
        """
        key = (prompt, device)
        if key not in self._contexts:
            with torch.no_grad():
                self._contexts[key] = self.text(self._tokens(prompt).to(device)).last_hidden_state.float()
        return self._contexts[key].clone()  # what was made in inference mode may be wanted for training

    def _tokens(self, prompt: str) -> Tensor:
        if not prompt:
            tokens = [_START, _END]
        elif self.tokenizer is None:
            raise InputError("A prompt needs CLIP's tokenizer, and the base model has none, as single files never have; name a "
                             'diffusers folder with its folder tokenizer in network_g: base, or leave the prompt out.')
        else:
            tokens = require('transformers').CLIPTokenizer.from_pretrained(self.tokenizer)(
                prompt, truncation=True, max_length=_TOKENS)['input_ids']
        return torch.tensor([tokens + [self._padding] * (_TOKENS - len(tokens))])


class Encoder(nn.Module):
    """The autoencoder's way in: an image, (B, 3, H, W), to mean and log-variance of its latent, (B, 8, H / 8, W / 8)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        found = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        return torch.cat([found.mean, found.logvar], dim=1).float()


class Decoder(nn.Module):
    """The autoencoder's way out: a latent, (B, 4, h, w), scaled, to an image in [-1, 1], (B, 3, 8 h, 8 w)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode((latent / self.vae.config.scaling_factor).to(self.vae.dtype), return_dict=False)[0].float()


def economise(net: nn.Module, attention_window: int | None, attention_slicing: bool, gradient_checkpointing: bool) -> None:
    """Let a diffusers network spend less memory on attention, and on what the backward pass needs."""
    if attention_window:
        attend_in_windows(net, attention_window)
    if attention_slicing:
        net.set_attention_slice('auto')
    if gradient_checkpointing:
        net.enable_gradient_checkpointing()


def pad_to(image: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with zeros at the right and bottom, to multiples."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))
