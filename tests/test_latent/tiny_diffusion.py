"""Sizes of tiny networks on Stable Diffusion, and a tiny one itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

#: Arguments of ``configs``: some 2 million numbers, most of them the vocabulary's.
SIZE = {'channels': 32, 'mults': [1, 1], 'head_channels': 16, 'context': 32, 'vae_channels': 32, 'vae_mults': [1, 1, 1, 1],
        'text_layers': 1, 'text_heads': 2}
#: What makes it one of Stable Diffusion 1.
ONE = {'linear': False, 'heads': 2}
#: A DeblurDiff as small.
SMALL = {'type': 'DeblurDiff', 'kpn_channels': 32, 'kpn_mults': [1, 1], 'kpn_head_channels': 16, 'kernel_size': 3}


def make_base(folder: Path, predicts: str = 'epsilon', **size: Any) -> Path:
    """A diffusers folder of the real classes, with a tokenizer that knows single letters; its size changed by ``size``."""
    from stochastic_refine.latent.stable_diffusion import StableDiffusion, configs
    torch.manual_seed(0)
    net = StableDiffusion(configs(**{**SIZE, **size}))
    for name, part in (('unet', net.unet), ('vae', net.vae), ('text_encoder', net.text)):
        part.save_pretrained(folder / name)
    (folder / 'model_index.json').write_text('{}')
    (folder / 'scheduler').mkdir()
    (folder / 'scheduler' / 'scheduler_config.json').write_text(json.dumps({'prediction_type': predicts}))
    (folder / 'tokenizer').mkdir()
    letters = [f'{letter}{end}' for end in ('', '</w>') for letter in 'abcdefghijklmnopqrstuvwxyz']
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {'<|startoftext|>': 49406, '<|endoftext|>': 49407}
    (folder / 'tokenizer' / 'vocab.json').write_text(json.dumps(vocabulary))
    (folder / 'tokenizer' / 'merges.txt').write_text('#version: 0.2\n')
    return folder
