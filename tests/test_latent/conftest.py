"""A tiny Stable Diffusion of the real classes, as a diffusers folder."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from .tiny_diffusion import SIZE, SMALL

if not (importlib.util.find_spec('diffusers') and importlib.util.find_spec('transformers')):
    collect_ignore_glob = ['test_*.py']


@pytest.fixture(scope='session')
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, with a tokenizer that knows single letters."""
    from stochastic_refine.latent.stable_diffusion import StableDiffusion, configs
    torch.manual_seed(0)
    net = StableDiffusion(configs(**SIZE))
    folder = tmp_path_factory.mktemp('base')
    for name, part in (('unet', net.unet), ('vae', net.vae), ('text_encoder', net.text)):
        part.save_pretrained(folder / name)
    (folder / 'model_index.json').write_text('{}')
    (folder / 'scheduler').mkdir()
    (folder / 'scheduler' / 'scheduler_config.json').write_text(json.dumps({'prediction_type': 'epsilon'}))
    (folder / 'tokenizer').mkdir()
    letters = [f'{letter}{end}' for end in ('', '</w>') for letter in 'abcdefghijklmnopqrstuvwxyz']
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {'<|startoftext|>': 49406, '<|endoftext|>': 49407}
    (folder / 'tokenizer' / 'vocab.json').write_text(json.dumps(vocabulary))
    (folder / 'tokenizer' / 'merges.txt').write_text('#version: 0.2\n')
    return folder


@pytest.fixture
def network(base: Path) -> dict[str, Any]:
    """Options of a small DeblurDiff on it."""
    return {**SMALL, 'base': str(base)}
