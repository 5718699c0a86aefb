"""Weights of Stable Diffusion that a system is built on: finding them, checking what they are, loading and sharing them.

They are a diffusers folder, a single file, or the name of a hub's repository that is on this machine. Whatever they are, names
and shapes are checked before anything is built; of a ``.safetensors`` file no more than its head is read for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ..archs.layouts import Recognised, foreign_layout
from ..archs.memory_format import channels_last
from ..checkpoints.files import read_checkpoint, shape_problems
from ..errors import InputError, words_of
from .extra import require
from .names import autoencoder_params, open_clip_params, split, unet_params
from .sharing import is_planned
from .stable_diffusion import SD15_SIZE, Configs, StableDiffusion, build_text, configs

#: Folders of a diffusers folder.
_FOLDERS = Configs('unet', 'vae', 'text_encoder')
_UNET, _VAE = 'model.diffusion_model.', 'first_stage_model.'


def _without_constants(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in params.items() if not name.endswith('position_ids')}


#: Prefixes of the parts in single files, and how the text encoder's names are translated: of Stable Diffusion 2, of 1, and of
#: systems whose files have their base in them.
_SINGLE_FILES = (
    (Configs(_UNET, _VAE, 'cond_stage_model.model.'), open_clip_params),
    (Configs(_UNET, _VAE, 'cond_stage_model.transformer.text_model.'), _without_constants),
    (Configs('unet.', 'vae.', 'clip.model.'), open_clip_params),
)
_FILES = ('diffusion_pytorch_model.safetensors', 'model.safetensors', 'diffusion_pytorch_model.fp16.safetensors',
          'model.fp16.safetensors', 'diffusion_pytorch_model.bin', 'pytorch_model.bin')
#: What earlier versions of diffusers called an autoencoder's attention; those of transformers put text_model. before all.
_OLD_NAMES = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}
_SINGLE = ('.safetensors', '.ckpt', '.pth', '.pt', '.bin')


@dataclass(frozen=True)
class Version:
    """A Stable Diffusion that systems are built on.

    Args:
        name: Of the version.
        repository: Where it is published.
        size: Arguments of :func:`~stochastic_refine.latent.stable_diffusion.configs`.
        predicts: What its U-Net predicts, in diffusers' words; a folder tells it, a single file does not.
    """

    name: str
    repository: str
    size: Mapping[str, Any] = field(default_factory=dict, hash=False)
    predicts: str = 'epsilon'

    @property
    def context(self) -> int:
        """Channels of its text's tokens."""
        return configs(**self.size).unet['cross_attention_dim']

    @property
    def linear(self) -> bool:
        """Whether its transformers begin and end with linear layers, not 1x1 convolutions."""
        return configs(**self.size).unet['use_linear_projection']

    @property
    def advice(self) -> str:
        """What to do where it is missing."""
        return (f'fetch {self.name} (hf download {self.repository}) and name the repository, its folder or its single file in '
                'network_g: base')


SD21 = Version('Stable Diffusion 2.1 base', 'stabilityai/stable-diffusion-2-1-base')
#: What DiffBIR 2.1 is built on.
SD21_V = Version('Stable Diffusion 2.1 base with zero terminal SNR', 'lxq007/DiffBIR-v2', predicts='v_prediction')
SD15 = Version('Stable Diffusion 1.5', 'stable-diffusion-v1-5/stable-diffusion-v1-5', SD15_SIZE)
_OTHERS = {(768, False): 'Stable Diffusion 1', (1024, True): 'Stable Diffusion 2', (2048, True): 'Stable Diffusion XL'}

_shared: WeakValueDictionary[tuple[Any, ...], StableDiffusion] = WeakValueDictionary()


def shared_base(name: str, version: Version, precision: torch.dtype, **savings: Any) -> StableDiffusion:
    """Stable Diffusion with its weights, frozen; the same one for all networks that want it alike.

    Args:
        name: A diffusers folder, a single file, or a repository of a hub that is on this machine.
        version: What it must be.
        precision: Of its weights, to which they are cast once.
        **savings: Of :meth:`StableDiffusion.economise`.

    Raises:
        InputError: If it is missing, damaged or something else.
    """
    path = find_base(name, version)
    planned = is_planned()
    key = (path, version, precision, planned, *sorted(savings.items()))
    base = _shared.get(key)
    if base is None:
        base = _planned(path, version) if planned else _loaded(path, version)
        base = _shared[key] = channels_last(base.to(precision)).economise(**savings)
    return base


def find_base(name: str, version: Version) -> Path:
    """The folder or file behind what an options file says.

    Raises:
        InputError: If there is none, or it is only a part or a heap of what is needed.
    """
    path = Path(name).expanduser()
    if not path.exists() and re.fullmatch(r'[\w.-]+/[\w.-]+', name) and not path.suffix:
        try:
            return Path(require('huggingface_hub').snapshot_download(name, local_files_only=True))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f'The base model {name} is not on this machine; {version.advice}.') from error
    if not path.exists():
        raise InputError(f'The base model {name} does not exist; check the path, or {version.advice}.')
    if path.is_file():
        if path.suffix not in _SINGLE:
            raise InputError(f'The base model {name} is no file of weights; {version.advice}.')
        if (path.parent / 'config.json').is_file() and (path.parent.parent / 'model_index.json').is_file():
            raise InputError(f'{name} is one part of a diffusers folder, and a single file would hold all of them; name the '
                             f'folder {path.parent.parent}.')
        return path
    if all((path / folder / 'config.json').is_file() for folder in _FOLDERS):
        return path
    files = sorted(file.name for file in path.iterdir() if file.suffix in _SINGLE)
    if (path / 'config.json').is_file():
        raise InputError(f'{name} is one part of a diffusers folder; name the folder that it is in, {path.parent}.')
    if files:
        raise InputError(f'{name} is no diffusers folder (one with unet/, vae/ and text_encoder/) but one that holds single '
                         f'files; name the file itself, for example {path / files[0]}.')
    lacking = [folder for folder in _FOLDERS if not (path / folder / 'config.json').is_file()]
    raise InputError(f'The base model {name} lacks {", ".join(f"{folder}/config.json" for folder in lacking)}, which a '
                     f'diffusers folder has; {version.advice}.')


def _planned(path: Path, version: Version) -> StableDiffusion:
    """Without weights; checked by names and shapes."""
    states = _states(path, shapes_only=True)
    parts = _configs(path, states, version)
    base = StableDiffusion(parts)
    _check(base, states, path)
    return base


def _loaded(path: Path, version: Version) -> StableDiffusion:
    states = _states(path)
    parts = _configs(path, states, version)
    tokenizer = path / 'tokenizer'
    with torch.device('meta'):
        base = StableDiffusion(parts, str(tokenizer) if tokenizer.is_dir() else None)
    _check(base, states, path)
    base.unet.load_state_dict(states.unet, assign=True)
    base.vae.load_state_dict(states.vae, assign=True)
    base.text = build_text(parts.text)  # has tables that are in no file
    base.text.load_state_dict(states.text)
    base.requires_grad_(False)
    return base


def _states(path: Path, shapes_only: bool = False) -> Configs:
    """The state dicts of the three parts, under the names that they have here."""
    if path.is_dir():
        return Configs(*(_state_of_folder(path / folder, shapes_only) for folder in _FOLDERS))
    params = _read(path, shapes_only)
    for prefixes, text_params in _SINGLE_FILES:
        unet, vae, text = split(params, prefixes).values()
        if unet and vae and text:
            return Configs(unet_params(unet), autoencoder_params(vae), text_params(text))
    raise InputError(f'{path} is no single file of Stable Diffusion: no tensors {_UNET}* (first: '
                     f"{min(params, default='none')}); give such a file, or a whole diffusers folder.")


def _state_of_folder(folder: Path, shapes_only: bool) -> dict[str, Tensor]:
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f'{folder} has no weights ({_FILES[0]} or {_FILES[-1]}); copy or download it again.')
    state = {}
    for name, value in _read(file, shapes_only).items():
        name = name.removeprefix('text_model.')
        for old, new in _OLD_NAMES.items():
            name = name.replace(f'.attentions.0.{old}.', f'.attentions.0.{new}.')
        state[name] = value
    return _without_constants(state)


def _read(path: Path, shapes_only: bool) -> dict[str, Tensor]:
    if not shapes_only or path.suffix != '.safetensors':
        params = read_checkpoint(path).params
        return {name: value.to('meta') for name, value in params.items()} if shapes_only else params
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework='pt') as file:
            return {name: torch.empty(file.get_slice(name).get_shape(), device='meta') for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is damaged or no safetensors file; copy or download it again.') from error


def _configs(path: Path, states: Configs, version: Version) -> Configs:
    """The settings of the three parts, once it is clear that they are the version's.

    Raises:
        InputError: If the base is another version.
    """
    unet = states.unet
    try:
        context = unet['down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'].shape[1]
        linear = unet['down_blocks.0.attentions.0.proj_in.weight'].dim() == 2
        told = _told(path) if path.is_dir() else _inferred(states, linear)
    except (KeyError, IndexError) as error:
        raise InputError(f'The base model {path} lacks {error}; copy or download it again, or {version.advice}.') from error
    channels = unet['conv_in.weight'].shape[1]
    other = _OTHERS.get((context, linear))
    if linear != version.linear or other is not None and context != version.context:
        raise InputError(f"The base model {path} is {other or 'another Stable Diffusion'} (its text has {context} channels), "
                         f'and this system is built on {version.name} ({version.context}); {version.advice}.')
    if channels != 4:
        raise InputError(f'The base model {path} takes {channels} channels, as those for inpainting or depth do, not the 4 of '
                         f'a latent; {version.advice}.')
    scheduler = path / 'scheduler' / 'scheduler_config.json'
    predicts = _json(scheduler).get('prediction_type', 'epsilon') if scheduler.is_file() else version.predicts
    if predicts != version.predicts:
        raise InputError(f'The base model {path} predicts {predicts}, and this system needs one that predicts '
                         f'{version.predicts}; {version.advice}.')
    return told


def _told(path: Path) -> Configs:
    """What the folder's own files say, without what diffusers notes for itself."""
    parts = (_json(path / folder / 'config.json') for folder in _FOLDERS)
    unet, vae, text = ({key: value for key, value in part.items() if not key.startswith('_')} for part in parts)
    for key in ('architectures', 'model_type', 'torch_dtype', 'dtype', 'transformers_version'):
        text.pop(key, None)
    return Configs(unet, vae, text)


def _inferred(states: Configs, linear: bool) -> Configs:
    """What a single file's shapes say; heads are those of all of Stable Diffusion 2, or of 1."""
    unet, vae, text = states

    def widths(state: Mapping[str, Tensor], side: str) -> list[int]:
        found = []
        while (name := f'{side}down_blocks.{len(found)}.resnets.0.conv1.weight') in state:
            found.append(state[name].shape[0])
        return found

    channels, vae_channels = widths(unet, ''), widths(vae, 'encoder.')
    context, hidden = unet['mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight'].shape[1], text[
        'final_layer_norm.weight'].shape[0]
    return configs(channels=channels[0], mults=[width // channels[0] for width in channels], context=context,
                   vae_channels=vae_channels[0], vae_mults=[width // vae_channels[0] for width in vae_channels],
                   text_layers=sum(name.endswith('.mlp.fc1.weight') for name in text), text_heads=max(hidden // 64, 1),
                   **({} if linear else {key: SD15_SIZE[key] for key in ('text_activation', 'heads', 'linear')}))


def _check(base: nn.Module, states: Configs, path: Path) -> None:
    for folder, part, state in zip(_FOLDERS, (base.unet, base.vae, base.text), states):
        problems = shape_problems(part.state_dict(), state)
        if problems:
            raise InputError(f"The base model {path}: of its {folder} {'; '.join(words for _, words in problems)}; copy or "
                             'download it again.')


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read ({words_of(error)}); copy or download it again.') from error
    if not isinstance(content, dict):
        raise InputError(f'{path} is no block of settings; copy or download it again.')
    return content


@foreign_layout(f'{_UNET}input_blocks.0.0.weight')
def _refused(params: Mapping[str, Tensor]) -> Recognised:
    raise InputError('it is Stable Diffusion itself, which restores nothing; a system on it names it in network_g: base, and '
                     'has weights of its own.')
