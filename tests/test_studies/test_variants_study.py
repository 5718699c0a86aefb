"""The variants that a network names: their options, and the study whole on a tiny budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from stochastic_refine.archs import build_arch
from stochastic_refine.comparison.published import published_table
from stochastic_refine.errors import InputError
from stochastic_refine.studies.frame import Study
from stochastic_refine.studies.inputs import study_images
from stochastic_refine.studies.variants import variants_of, variants_study

OPTIONS = Path(__file__).resolve().parents[2] / 'options' / 'latent' / 'train_deblurdiff.yml'


def test_variants_are_the_rows_of_the_papers_table() -> None:
    base = yaml.safe_load(OPTIONS.read_text())
    before = json.dumps(base)
    found = variants_of(base, OPTIONS, 100)
    assert json.dumps(base) == before and list(found) == list(published_table('deblurdiff_ablation')['rows'])
    networks = {name: opt['network_g'] for name, opt in found.items()}
    assert networks['DeblurDiff'] == base['network_g']
    assert networks['w/o EAC'] == {**base['network_g'], 'eac': False}
    assert networks['ControlNet'] == {**base['network_g'], 'type': 'ControlNet'}
    assert 'latent_opt' in found['w/o EAC']['train'] and 'latent_opt' not in found['ControlNet']['train']
    assert len({opt['name'] for opt in found.values()}) == 4
    for change in ({'network_g': {'type': 'NAFNet'}}, {'train': {}}):
        with pytest.raises(InputError, match='names no variants|no options file of a training'):
            variants_of({**base, **change}, OPTIONS, 100)


def untrained(file: Path) -> int:
    """Stands for a training: weights as they are built."""
    opt = yaml.safe_load(file.read_text())
    folder = Path('experiments') / opt['name'] / 'models'
    folder.mkdir(parents=True)
    torch.save({'params': build_arch(opt['network_g']).state_dict()}, folder / 'net_g_latest.pth')
    return 0


def test_whole(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('diffusers')
    from test_latent.tiny_diffusion import SMALL, make_base
    monkeypatch.chdir(tmp_path)
    opt = yaml.safe_load(OPTIONS.read_text())
    opt['network_g'] |= {**SMALL, 'base': str(make_base(tmp_path / 'base'))}
    for data in opt['datasets'].values():
        data |= {'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq')}
    opt['val']['steps'] = 1
    (tmp_path / 'train.yml').write_text(yaml.safe_dump(opt))
    options = tmp_path / 'train.yml'
    frame = Study('variants', study_images(options), tmp_path / 'out', torch.device('cpu'), 'psnr', 1)
    report = variants_study(frame, options, 1, untrained)
    rows = {row['variant']: row for row in report.rows}
    assert all(row['psnr'] > 3 for row in rows.values()) and rows['w/o EAC']['published_psnr'] == 22.57
    assert rows['ControlNet']['params'] < rows['w/o EAC']['params'] < rows['DeblurDiff']['params']
    assert (tmp_path / 'out' / 'variants.png').is_file()
