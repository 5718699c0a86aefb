"""Pixel-aware cross-attention: a decoder's map attends to every pixel of the ControlNet's map of the same size.

Its parts, under the authors' names, and how they work inside a frozen U-Net that other networks use at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..extra import require


class PixelAttention(nn.Module):
    """PASD's: a transformer after each residual block of the decoder, and after the text's.

    Each ends in zeros, so that a training starts from the U-Net as it is (ours).

    Args:
        unet: A ``UNet2DConditionModel``; nothing of it is kept.
        channels: Of the ControlNet's maps, from the first.
    """

    def __init__(self, unet: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        waiting = list(channels)
        for block, heads in zip(unet.up_blocks, _heads(unet)):
            # some blocks have no text to attend to
            texts = getattr(block, 'attentions', [None] * len(block.resnets))
            self.up_blocks.append(self._parts([(resnet.out_channels, waiting.pop(), heads, text)
                                               for resnet, text in zip(block.resnets, texts)]))

    def _parts(self, sizes: list[tuple[int, int, int, nn.Module | None]]) -> nn.Module:
        """The parts for a block: per residual block its channels, the ControlNet's, the heads, and the text's transformer."""
        layers = [require('diffusers').Transformer2DModel(heads, width // heads, width, cross_attention_dim=control)
                  for width, control, heads, _ in sizes]
        for layer in layers:
            _zero(layer.proj_out)
        return nn.ModuleDict({'pixel_attentions': nn.ModuleList(layers)})

    def forward(self, at: tuple[int, int], x: Tensor, text: nn.Module | None, context: Tensor, control: Tensor) -> Tensor:
        """What follows a residual block.

        Args:
            at: Which: its block, and its number in that.
            x: Its output, (B, C, h, w).
            text: The U-Net's own transformer there, which attends to the text.
            context: The text's tokens, (B, 77, C).
            control: The ControlNet's map, (B, C', h, w).
        """
        if text is not None:
            x = text(x, encoder_hidden_states=context, return_dict=False)[0]
        layer = self.up_blocks[at[0]]['pixel_attentions'][at[1]]
        kind = layer.dtype
        return layer(x.to(kind), encoder_hidden_states=_tokens(control).to(kind), return_dict=False)[0].to(x.dtype)


class LightPixelAttention(PixelAttention):
    """PASD-light's: one more cross-attention in each of the text's transformers, after the text's (our reading)."""

    def _parts(self, sizes: list[tuple[int, int, int, nn.Module | None]]) -> nn.Module:
        attention = require('diffusers').models.attention_processor.Attention
        layers = []
        for width, control, heads, text in sizes:
            if text is None:
                continue
            blocks = nn.ModuleList(
                nn.ModuleDict({'norm2_plus': nn.LayerNorm(width),
                               'attn2_plus': attention(width, control, heads, dim_head=width // heads)})
                for _ in text.transformer_blocks)
            for block in blocks:
                _zero(block['attn2_plus'].to_out[0])
            layers.append(nn.ModuleDict({'proj_in_plus': nn.Conv2d(control, control, 1), 'transformer_blocks': blocks}))
        return nn.ModuleDict({'attentions': nn.ModuleList(layers)})

    def forward(self, at: tuple[int, int], x: Tensor, text: nn.Module | None, context: Tensor, control: Tensor) -> Tensor:
        if text is None:
            return x
        layer = self.up_blocks[at[0]]['attentions'][at[1]]
        kind = layer['proj_in_plus'].weight.dtype
        control = _tokens(layer['proj_in_plus'](control.to(kind)))
        tokens = _tokens(text.proj_in(text.norm(x)))  # convolutions in Stable Diffusion 1
        for block, own in zip(text.transformer_blocks, layer['transformer_blocks']):
            tokens = tokens + block.attn1(block.norm1(tokens))
            tokens = tokens + block.attn2(block.norm2(tokens), encoder_hidden_states=context)
            seen = own['attn2_plus'](own['norm2_plus'](tokens.to(kind)), encoder_hidden_states=control)
            tokens = tokens + seen.to(tokens.dtype)
            tokens = tokens + block.ff(block.norm3(tokens))
        return x + text.proj_out(tokens.transpose(1, 2).reshape(x.shape))


def predict_noise(unet: nn.Module, attention: PixelAttention, x: Tensor, t: Tensor, context: Tensor,
                  added: Sequence[Tensor]) -> Tensor:
    """The U-Net's prediction, (B, 4, h, w), float32, with the ControlNet's maps added to its skips and its middle, and attended
    to in its decoder.

    That they are added, as those of every ControlNet, is our reading: there is a map for the middle, which nothing attends to.

    Args:
        unet: Of Stable Diffusion 1; in the precision of its weights.
        attention: The parts that attend.
        x: Noisy latent, (B, 4, h, w).
        t: Steps, (B,).
        context: The text's tokens, (B or 1, 77, C).
        added: Of :func:`~stochastic_refine.latent.stable_diffusion.controls`.
    """
    kind = unet.dtype
    context = context.expand(len(x), -1, -1).to(kind)
    *added, middle = (value.to(kind) for value in added)
    embedding = unet.time_embedding(unet.time_proj(t).to(kind))
    x = unet.conv_in(x.to(kind))
    skips = [x]
    for block in unet.down_blocks:
        told = {'encoder_hidden_states': context} if getattr(block, 'has_cross_attention', False) else {}
        x, more = block(x, embedding, **told)
        skips.extend(more)
    x = unet.mid_block(x, embedding, encoder_hidden_states=context) + middle

    def layer(at: tuple[int, int], x: Tensor, skip: Tensor, control: Tensor) -> Tensor:
        block = unet.up_blocks[at[0]]
        x = block.resnets[at[1]](torch.cat([x, skip + control], dim=1), embedding)
        return attention(at, x, block.attentions[at[1]] if hasattr(block, 'attentions') else None, context, control)

    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            given = (i, j), x, skips.pop(), added.pop()
            x = checkpoint(layer, *given, use_reentrant=False) if block.gradient_checkpointing and torch.is_grad_enabled() \
                else layer(*given)
        for upsampler in block.upsamplers or ():
            x = upsampler(x, skips[-1].shape[-2:])
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x))).float()


def _heads(unet: nn.Module) -> list[int]:
    """Attention heads in each block of the decoder; diffusers calls them otherwise."""
    heads = unet.config.attention_head_dim
    return [heads] * len(unet.up_blocks) if isinstance(heads, int) else list(heads)[::-1]


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
