"""Base models: what they may be, and what is said of one that cannot be used, before anything is built of it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.errors import InputError
from stochastic_refine.inference.weights import check_runs
from stochastic_refine.latent import names
from stochastic_refine.latent.base_weights import SD15, SD21, shared_base
from stochastic_refine.latent.stable_diffusion import SD15_SIZE, StableDiffusion, configs

from .tiny_diffusion import SIZE


def copied(base: Path, tmp_path: Path, *changes: tuple[str, str, Any]) -> Path:
    """The folder with settings (file, key, value) changed."""
    folder = Path(shutil.copytree(base, tmp_path / 'changed'))
    for file, key, value in changes:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    return folder


def test_networks_share_one_base_that_is_cast_once(base: Path, network: dict[str, Any]) -> None:
    one, other = build_arch(network), build_arch({**network, 'eac': False})
    clone = copy.deepcopy(one)
    assert one.base is other.base is clone.base and clone._denoiser.control is clone.controlnet is not one.controlnet
    lower = build_arch({**network, 'base_precision': 'bfloat16'}).eval()
    assert lower.base is not one.base and lower.base.unet.dtype == torch.bfloat16
    check_runs(lower, 'network')  # in float32 around it
    assert not [name for name in one.state_dict() if name.startswith('base.')]
    stored = load_file(base / 'unet' / 'diffusion_pytorch_model.safetensors')
    assert torch.equal(one.base.unet.state_dict()['conv_in.weight'], stored['conv_in.weight'])
    first = one.controlnet.state_dict()['conv_in.weight']  # starts from the U-Net
    assert torch.equal(first[:, :4], stored['conv_in.weight']) and not first[:, 4:].any()
    assert torch.equal(one.controlnet.down_blocks[0].resnets[0].conv1.weight, stored['down_blocks.0.resnets.0.conv1.weight'])


def test_single_file(tmp_path: Path) -> None:
    """Under the names of LDM and OpenCLIP, with the layer that is not read."""
    from diffusers import UNet2DConditionModel

    size = {**SIZE, 'channels': 64, 'head_channels': 64, 'mults': [1, 1, 1, 1], 'context': 64, 'text_heads': 1}
    net = StableDiffusion(configs(**size))
    state = {'model.diffusion_model.': net.unet.state_dict(), 'first_stage_model.': net.vae.state_dict()}
    params = {}
    # each LDM name is found by asking what it becomes
    layout = json.loads((Path(__file__).parents[1] / 'data/parity/DeblurDiff-full-all/layout.json').read_text())['tensors']
    for prefix, theirs, rename in (('model.diffusion_model.', 'unet.', names.unet_params),
                                   ('first_stage_model.', 'vae.', names.autoencoder_params)):
        known = [name.removeprefix(theirs) for name in layout if name.startswith(theirs)]
        for old, new in zip(known, rename({name: torch.zeros(1, 1) for name in known})):
            if (value := state[prefix].get(new)) is None:  # equal widths need no shortcut
                continue
            params[prefix + old] = value[..., None, None] if '.attn_1.' in old and value.dim() == 2 else value
    text = net.text.state_dict()
    prefix = 'cond_stage_model.model.'
    params |= {f'{prefix}positional_embedding': text['embeddings.position_embedding.weight'],
               f'{prefix}token_embedding.weight': text['embeddings.token_embedding.weight'],
               f'{prefix}text_projection': torch.zeros(64, 64), f'{prefix}logit_scale': torch.zeros(())}
    for kind in ('weight', 'bias'):
        params[f'{prefix}ln_final.{kind}'] = text[f'final_layer_norm.{kind}']
        for layer in (0, 1):
            block, own = f'{prefix}transformer.resblocks.{layer}', 'encoder.layers.0'
            params[f'{block}.attn.in_proj_{kind}'] = torch.cat([text[f'{own}.self_attn.{x}_proj.{kind}'] for x in 'qkv'])
            for old, new in names._OPEN_CLIP.items():
                params[f'{block}.{old}.{kind}'] = text[f'{own}.{new}.{kind}'].clone()
    file = tmp_path / 'sd.safetensors'
    save_file({name: value.contiguous().clone() for name, value in params.items()}, file)
    loaded = shared_base(str(file), SD21, torch.float32)
    for part in ('unet', 'vae', 'text'):
        expected, found = getattr(net, part).state_dict(), getattr(loaded, part).state_dict()
        assert expected.keys() == found.keys() and all(torch.equal(found[name], value) for name, value in expected.items())
    assert isinstance(loaded.unet, UNet2DConditionModel)
    with pytest.raises(InputError, match='and this system is built on Stable Diffusion 1.5 .768.'):
        shared_base(str(file), SD15, torch.float32)
    with pytest.raises(InputError, match='Stable Diffusion itself.*network_g: base'):
        read_weights(file)
    with pytest.raises(InputError, match="A prompt needs CLIP's tokenizer"):
        loaded.context('a', torch.device('cpu'))


def test_names_are_those_of_diffusers_converters() -> None:
    from diffusers.loaders import single_file_utils as theirs

    layout = json.loads((Path(__file__).parents[1] / 'data/parity/DeblurDiff-full-all/layout.json').read_text())['tensors']
    shapes = {name: torch.empty(shape, device='meta') for name, (shape, _) in layout.items()}
    unet = names.split(shapes, ['unet.'])['unet.']
    converted = theirs.convert_ldm_unet_checkpoint({f'model.diffusion_model.{name}': value for name, value in unet.items()},
                                                   configs().unet)
    assert ({name: value.shape for name, value in converted.items()}
            == {name: value.shape for name, value in names.unet_params(unet).items()})


def test_old_names_in_a_folder(base: Path, tmp_path: Path, network: dict[str, Any]) -> None:
    folder = copied(base, tmp_path)
    file = folder / 'vae' / 'diffusion_pytorch_model.safetensors'
    old = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    state = {name: value.clone() for name, value in load_file(file).items()}  # the file is written over
    for new, name in old.items():
        state = {key.replace(f'attentions.0.{new}.', f'attentions.0.{name}.'): value for key, value in state.items()}
    save_file(state, file)
    assert torch.equal(build_arch({**network, 'base': str(folder)}).base.vae.state_dict()['encoder.conv_in.weight'],
                       state['encoder.conv_in.weight'])


@pytest.mark.parametrize('changes, words', [
    ([('unet/config.json', 'use_linear_projection', False)], 'Stable Diffusion'),
    ([('scheduler/scheduler_config.json', 'prediction_type', 'v_prediction')], 'predicts v_prediction.* needs .*epsilon'),
    ([('vae/config.json', 'latent_channels', 16)], r'of its vae .* of another shape'),
])
def test_another_version_is_refused(base: Path, tmp_path: Path, network: dict[str, Any], changes: list, words: str) -> None:
    folder = copied(base, tmp_path, *changes)
    if 'unet' in changes[0][0]:  # its shapes tell, as Stable Diffusion 1.5's do
        file = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
        state = {name: value[..., None, None] if '.proj_' in name and value.dim() == 2 else value
                 for name, value in load_file(file).items()}
        wide = 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'
        save_file({**state, wide: torch.zeros(32, 768)}, file)
        words = 'is Stable Diffusion 1 .*768 channels.*Stable Diffusion 2.1 base .*hf download'
    for make in (plan_arch, build_arch):  # before anything is built, and then too
        with pytest.raises(InputError, match=words):
            make({**network, 'base': str(folder)})


def test_a_base_with_part_of_its_tensors_is_refused(base: Path, tmp_path: Path, network: dict[str, Any]) -> None:
    folder = copied(base, tmp_path)
    file = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    state = {name: value.clone() for name, value in load_file(file).items()}  # the file is written over
    del state['mid_block.resnets.0.conv1.weight']
    save_file(state, file)
    with pytest.raises(InputError, match='of its unet 1 missing .first: mid_block.resnets.0.conv1.weight'):
        plan_arch({**network, 'base': str(folder)})


def test_folder_and_file_are_not_mixed_up(base: Path, tmp_path: Path, network: dict[str, Any]) -> None:
    single = tmp_path / 'checkpoints'
    single.mkdir()
    (single / 'v2-1.safetensors').write_bytes(b'')
    (tmp_path / 'empty').mkdir()
    for given, words in (
        (base / 'unet' / 'diffusion_pytorch_model.safetensors', f'one part of a diffusers folder.*folder {base}'),
        (base / 'unet', f'one part of a diffusers folder.*{base}'),
        (single, 'holds single files; name the file itself.*v2-1.safetensors'),
        (tmp_path / 'empty', 'lacks unet/config.json'),
        (tmp_path / 'none.safetensors', 'does not exist.*hf download stabilityai/stable-diffusion-2-1-base'),
        ('someone/no-such-model', 'someone/no-such-model is not on this machine.*hf download'),
        (Path(__file__), 'is no file of weights'),
    ):
        with pytest.raises(InputError, match=words):
            plan_arch({**network, 'base': str(given)})
    with pytest.raises(InputError, match='is a diffusers folder.*single file, so give one'):
        find_weights(base)


def test_stable_diffusion_1_5_is_the_published_size() -> None:
    """For systems that are built on it."""
    with torch.device('meta'):
        net = StableDiffusion(configs(**SD15_SIZE))
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in (net.unet, net.vae, net.text)]
    assert counts == [859_520_964, 83_653_863, 123_060_480]
