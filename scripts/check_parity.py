"""Our networks against the published implementations: names, shapes, outputs; a line for each case, exit code 1 on a failure.

    python scripts/check_parity.py tests/data/parity
    python scripts/check_parity.py CASES --layouts LAYOUTS --weights maxim-gopro.safetensors

CASES has a folder for each network, with ``layout.json``, the names and shapes of the published weights, and cases: inputs by
seed, and what the published implementation made of them with filled weights (``case_*.npz``) or with the published ones
(``real_weights*.npz``). Layouts that are not there are taken from LAYOUTS, then from this repository. An output passes if it
deviates by at most 1e-4 of its standard deviation, or 1e-3 where the case's own float32 noise is above 2e-5.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.maxim_weights import convert
from stochastic_refine.archs.predict_refine_arch import final_output
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.published_resshift import NETWORKS as RESSHIFT  # noqa: E402

if importlib.util.find_spec('diffusers') and importlib.util.find_spec('transformers'):
    from scripts.published_latent import NETWORKS as LATENT
else:
    LATENT = {}

OWN_LAYOUTS = Path(__file__).resolve().parents[1] / 'tests' / 'data' / 'parity'
_spec = importlib.util.spec_from_file_location('fill', OWN_LAYOUTS / 'fill.py')
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

Meta = Mapping[str, Any]


@dataclass
class Published:
    """One of our networks as the published implementation is called; add a system by deriving from it.

    Args:
        options: Of our network; None where the layout's own settings are such options.
        signed: Published for images in [-1, 1], where ours takes and returns [0, 1].
        inner: Stored arrays from inside the network: the module whose output each one is.
        weights: Name of published weights, for the cases that are computed with them.
    """

    options: dict[str, Any] | None = None
    signed: bool = False
    inner: dict[str, str] = field(default_factory=dict)
    weights: str | None = None

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        """The network of a case."""
        return build_arch({**(self.options or layout['config']), **meta['build']})

    def params(self, net: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict from tensors under the published names and in their shapes."""
        return weights

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        """The network's outputs under the names that the case stores them by."""
        found = {}
        inner = [name for name in names if name in self.inner]
        for name in inner:
            net.get_submodule(self.inner[name]).register_forward_hook(lambda *args, name=name: found.update({name: args[2]}))
        given = [(value + 1) / 2 if self.signed else value for value in inputs.values()]
        made = net(*given)
        outer = [name for name in names if name not in inner]
        for name, value in zip(outer, [final_output(net, made)] if outer == ['out'] else self.chosen(made, outer)):
            found[name] = value * 2 - 1 if self.signed else value
        return found

    def chosen(self, made: list[Tensor], names: list[str]) -> list[Tensor]:
        """Those of several outputs that are stored under these names."""
        if len(made) != len(names):
            raise InputError(f'{len(names)} outputs are stored, {len(made)} come out.')
        return made


class PublishedMAXIM(Published):
    """MAXIM: weights under flax names and in flax layouts."""

    def params(self, net: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return convert({name: value.numpy() for name, value in weights.items()}, 'the layout').params

    def chosen(self, made: list[Tensor], names: list[str]) -> list[Tensor]:
        every = [f'stage{i // 3 + 1}_{size}' for i, size in enumerate(['quarter', 'half', 'full'] * (len(made) // 3))]
        return [made[every.index(name)] for name in names]


class PublishedEVSSM(Published):
    """EVSSM: a case names the windows of its first level, which the next ones halve, in its settings or in its file's name."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        build = dict(meta['build'])
        given = next((build.pop(key) for key in list(build) if 'win' in key), None)
        if given is None and (named := re.search(r'win(\d+)', meta.get('case', ''))):
            given = int(named[1])
        if given is not None:
            build['windows'] = [given // 2**level for level in range(3)] if isinstance(given, int) else given
        return build_arch({**self.options, **build})


class PublishedHIDiff(Published):
    """HI-Diff as a whole: its schedule's tables, which are in no released file, are no tensors of ours."""

    def build(self, layout: Meta, meta: Meta) -> nn.Module:
        config = {**layout['config'], **meta['build']}
        types = {'net_g': 'HIDiffTransformer', 'net_le_dm': 'HIDiffEncoder', 'net_d': 'HIDiffDenoiser'}
        diffusion = {key: config['diffusion'][key] for key in ('timesteps', 'linear_start', 'linear_end')}
        parts = {part: {'type': kind, **config[part]} for part, kind in types.items()}
        return build_arch({'type': 'HIDiff', **diffusion, **parts})

    def params(self, net: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in weights.items() if '.' in name}

    def outputs(self, net: nn.Module, inputs: Mapping[str, Tensor], meta: Meta, names: list[str]) -> dict[str, Tensor]:
        condition = net.condition(inputs['x'])
        prior = net.sample_prior(condition, inputs['noise'])
        return {'cond': condition, 'prior': prior, 'out': net.net_g(inputs['x'], prior)}


#: The networks that we have, by folder. What has no line here is told as such.
NETWORKS = {
    'DBGAN': Published({'type': 'DBGAN'}, inner={'before_add_and_clamp': 'model'}),
    'DeblurGANv2-D-full': Published({'type': 'NLayerDiscriminator', 'n_layers': 5}),
    'DeblurGANv2-D-multiscale': Published({'type': 'MultiScaleDiscriminator'}),
    'DeblurGANv2-D-patch': Published({'type': 'NLayerDiscriminator', 'n_layers': 3}),
    'DeblurGANv2-FPNInception': Published({'type': 'DeblurGANv2', 'backbone': 'inception'}, signed=True,
                                          inner={'before_tanh': 'final'}),
    'DeblurGANv2-FPNMobileNet': Published({'type': 'DeblurGANv2', 'backbone': 'mobilenet'}, signed=True,
                                          inner={'before_tanh': 'final'}),
    'EVSSM': PublishedEVSSM({'type': 'EVSSM'}),
    'EVSSM-train': PublishedEVSSM({'type': 'EVSSM', 'windows': None}),
    'FFTformer': Published({'type': 'FFTformer'}),
    'HI-Diff-net_d': Published({'type': 'HIDiffDenoiser'}),
    'HI-Diff-net_g': Published({'type': 'HIDiffTransformer'}),
    'HI-Diff-net_le': Published({'type': 'HIDiffEncoder', 'in_chans': 6}),
    'HI-Diff-net_le_dm': Published({'type': 'HIDiffEncoder'}),
    'HI-Diff-stage2': PublishedHIDiff(),
    'HINet': Published({'type': 'HINet', 'hin_position_left': 3, 'hin_position_right': 4}),
    'MAXIM': PublishedMAXIM({'type': 'MAXIM'}, weights='maxim-gopro'),
    'MAXIM-small': PublishedMAXIM({'type': 'MAXIM', 'features': 8, 'num_stages': 2, 'num_groups': 1, 'num_bottleneck_blocks': 1,
                                   'block_size_hr': [8, 8], 'grid_size_hr': [4, 4], 'block_size_lr': [4, 4]}),
    'MIMO-UNet': Published({'type': 'MIMOUNet'}),
    'MIMO-UNetPlus': Published({'type': 'MIMOUNetPlus'}),
    'MPRNet': Published({'type': 'MPRNet'}),
    'NAFNet-GoPro-width32': Published(),
    'NAFNet-GoPro-width64': Published(),
    'Restormer-motion': Published({'type': 'Restormer'}),
    **LATENT,
    **RESSHIFT,
}


def filled(layout: Meta) -> dict[str, Tensor]:
    """Deterministic weights under the layout's names."""
    shapes = {name: (tuple(shape), dtype) for name, (shape, dtype) in layout['tensors'].items()}
    weights = fill.fill(shapes, layout['fill_gain'], layout['shared_storage'])
    more = tuple(layout.get('fill_add_one', ()))
    return {name: value + 1 if more and name.endswith(more) else value for name, value in weights.items()}


def load(net: nn.Module, params: Mapping[str, Tensor], layout: Meta) -> None:
    """Load weights whose names, shapes and types must be exactly the network's.

    Raises:
        InputError: With the first difference.
    """
    own = net.state_dict()
    params = {**params, **{name: own[name] for name in layout['keep_as_built'] if name in own}}
    for problem, names in (('lacks', params.keys() - own.keys()), ('has left over', own.keys() - params.keys())):
        if names:
            raise InputError(f'our network {problem} {len(names)} tensors, {min(names)} first.')
    for name, value in params.items():
        if (value.shape, value.dtype) != (own[name].shape, own[name].dtype):
            raise InputError(f'{name} is {own[name].dtype} {tuple(own[name].shape)}, published {value.dtype} '
                             f'{tuple(value.shape)}.')
    net.load_state_dict(params)


def check_layout(published: Published, layout: Meta) -> str:
    """Check the names and shapes of a network of which there are no cases, on the meta device; in words, how much it is."""
    with torch.device('meta'):
        net = published.build(layout, {'build': {}})
        weights = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, (shape, dtype) in layout['tensors'].items()}
    load(net, published.params(net, weights), {'keep_as_built': (), **layout})
    kept = sum(parameter.numel() for parameter in net.parameters())
    return f"{len(weights)} names and shapes agree, {layout['params']:,} parameters, of which {kept:,} are used"


def inputs_of(meta: Meta, stored: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The inputs of a case by name.

    Raises:
        InputError: If they are not what the published implementation was given.
    """
    if 'image' in stored:
        inputs = {'image': torch.from_numpy(stored['image']).permute(2, 0, 1)[None] / 255}
        checked = {'image': torch.from_numpy(stored['image'])}
    else:
        makers = {
            'rand': lambda spec: fill.make_input(spec['seed'], spec['shape']) * spec.get('scale', 1) + spec.get('shift', 0),
            'int': lambda spec: torch.tensor(spec['value'], dtype=torch.int64),
            'float': lambda spec: torch.tensor(spec['value'], dtype=torch.float32),
        }
        inputs = checked = {spec['name']: makers[spec['kind']](spec) for spec in meta['inputs']}
    for name, (total, first) in meta.get('input_check', {}).items():
        value = checked[name].double()
        if abs(value.sum().item() - total) > 1e-6 * value.abs().sum().item() or value.flatten()[0].item() != first:
            raise InputError(f'{name} is not the input that the case was computed from.')
    return inputs


def check_case(published: Published, layout: Meta, case: Path, weights: Mapping[str, Tensor] | None = None) -> str:
    """Check one case; in words, the largest deviation.

    Args:
        published: The network.
        layout: Its names and shapes.
        case: The file.
        weights: Published weights in our names; the filled ones unless given.

    Raises:
        InputError: If anything differs, with the first thing that does.
    """
    with np.load(case, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    meta = {**json.loads(str(stored.pop('meta'))), 'case': case.stem}
    net = published.build(layout, meta)
    load(net, published.params(net, filled(layout)) if weights is None else weights, layout)
    net.train(meta['mode'] == 'train')
    inputs = inputs_of(meta, stored)
    names = [name for name in stored if name not in inputs]
    with torch.inference_mode():
        outputs = published.outputs(net, inputs, meta, names)
    worst = (-1.0, '', 0.0)
    for name in names:
        told = meta['outputs'][name]
        stride = told.get('stored_stride', 1)
        made = (outputs[name] if stride == 1 else outputs[name][..., ::stride, ::stride]).numpy()
        if made.shape != stored[name].shape:
            raise InputError(f'{name} is {made.shape}, published {stored[name].shape}.')
        tolerance = 1e-3 if meta['rel_noise_f32_vs_f64'].get(name, 0) > 2e-5 else 1e-4
        deviation = float(np.abs(made - stored[name]).max()) / told['std']
        worst = max(worst, (deviation / tolerance if deviation == deviation else float('inf'), name, deviation))
    share, name, deviation = worst
    words = f'{name} deviates by {deviation:.1e} of its standard deviation, {share:.2g} of the tolerance'
    if share > 1:
        raise InputError(f'{words}.')
    return words


def find_layout(name: str, folders: list[Path]) -> Meta | None:
    """The layout of a network from the first of the folders that has it."""
    files = [folder / name / 'layout.json' for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    return None if file is None else json.loads(file.read_text())


def published_weights(published: Published, given: str | None) -> dict[str, Tensor] | str:
    """The published weights in our names, or why there are none."""
    name = given or published.weights
    if name is None:
        return 'its weights have no name here'
    try:
        return read_weights(find_weights(name)).params
    except InputError as error:
        if given:
            raise
        return str(error)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cases', metavar='CASES', type=Path)
    parser.add_argument('--layouts', metavar='LAYOUTS', type=Path)
    parser.add_argument('--weights', help='published weights: file, folder or name (default: those known by name)')
    parser.add_argument('--only', help='the network of this folder alone')
    args = parser.parse_args()
    if not args.cases.is_dir() or args.layouts and not args.layouts.is_dir():
        raise InputError(f'{args.layouts if args.cases.is_dir() else args.cases} is no folder; give one that has a folder for '
                         'each network.')
    folders = sorted(path for path in args.cases.iterdir() if path.is_dir() and args.only in (None, path.name))
    if not folders:
        raise InputError(f'{args.cases} holds no folder of a network; check the path.')
    counts = {'ok': 0, 'FAILED': 0, 'skipped': 0}

    def tell(verdict: str, case: str, words: str) -> None:
        counts[verdict] += 1
        print(f'{verdict:8}{case}: {words}', flush=True)

    for folder in folders:
        published = NETWORKS.get(folder.name)
        cases = sorted([*folder.glob('case_*.npz'), *folder.glob('real_weights*.npz')])
        if published is None:
            tell('skipped', folder.name, 'no network yet')
            continue
        layout = find_layout(folder.name, [args.cases, *([args.layouts] if args.layouts else []), OWN_LAYOUTS])
        if layout is None:
            tell('FAILED', folder.name, 'there is no layout.json; give --layouts')
            continue
        if layout.get('layout_only'):
            cases = [folder / 'layout.json']
        if not cases:
            tell('skipped', folder.name, 'no cases')
        for case in cases:
            name, weights = f'{folder.name}/{case.stem}', None
            try:
                if case.name.startswith('real'):
                    weights = published_weights(published, args.weights)
                    if isinstance(weights, str):
                        tell('skipped', name, f'no published weights: {weights}')
                        continue
                tell('ok', name, check_layout(published, layout) if layout.get('layout_only') else
                     check_case(published, layout, case, weights))
            except Exception as error:  # whatever a network raises is this case's failure, and the others go on
                tell('FAILED', name, f'{error}' if isinstance(error, InputError) else f'{type(error).__name__}: {error}')
    print(', '.join(f'{count} {verdict}' for verdict, count in counts.items()))
    return 1 if counts['FAILED'] else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        sys.exit(2)
