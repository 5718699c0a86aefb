"""Malformed options files, given to ``stochastic-refine train`` and ``test``; what is not refused must do its first step."""

from __future__ import annotations

import copy
import os
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import skimage.data
import torch
import yaml
from damage import damaged, leaves, replaced
from malformed_child import Case
from PIL import Image
from tiny import NETWORK, tiny_weights

from stochastic_refine.integrations.basicsr.launch import main, prepare_basicsr

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
#: Values of a wrong type, range or size, for leaves of any kind.
WRONG = [None, 'text', '', 5, -1, 0.5, 10**30, float('nan'), float('inf'), True, [], [1, 2], ['a', None], {}, {'key': 1},
         'x' * 5000]
#: BasicSR's modules ``train`` and ``test`` as they are before a command, but for a pipeline that ends after the checks.
PIPELINES: dict[str, dict[str, Any]] = {}


def cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    prepare_basicsr()
    import basicsr.test
    import basicsr.train
    os.chdir(folder)
    for mode in ('train', 'test'):
        module = getattr(basicsr, mode)
        setattr(module, f'{mode}_pipeline', partial(_begin, module, mode == 'train'))
        PIPELINES[mode] = dict(vars(module))
    good = good_options(folder)
    for name, (mode, options) in good.items():
        assert _case(folder, name, mode, yaml.safe_dump(options)).run() == 0, name
    for name, (mode, options) in good.items():
        for path, leaf in leaves(options):
            unlike = [value for value in WRONG if value != leaf or type(value) is not type(leaf)]
            for value in unlike if os.environ.get('MALFORMED') == 'all' else rng.sample(unlike, 1):
                if type(value) is type(leaf) and not isinstance(value, (str, list)) and value == value and abs(value) < 1e9:
                    continue  # another number
                words = f'{name}: {".".join(map(str, path))} = {str(value)[:30]!r}'
                text = yaml.safe_dump(replaced(options, path, value), sort_keys=False)
                key = next(key for key in reversed(path) if isinstance(key, str))
                # Of a network the sentence can also be that the weights are another one's
                yield _case(folder, words, mode, text, names='' if 'network_g' in path else key, may_pass=True)
    text = yaml.safe_dump(good['demo'][1]).encode()
    for words, broken in damaged(text, rng, cuts=10, flips=(1, 8, 64)):
        yield _case(folder, f'demo: {words}', 'train', broken, may_pass=True)
    for name, broken in strangers(text).items():
        yield _case(folder, name, 'train', broken, names='bad.yml')
    yield from _data(rng, folder, good['baseline'][1])
    hostile = folder / 'hostile'
    for tag in ('apply:os.system', 'apply:subprocess.getoutput', 'new:os.system'):
        content = text + f'\nx: !!python/object/{tag} ["touch {hostile}"]\n'.encode()
        for flag in ('-opt FILE', '-opt=FILE', '-op FILE'):
            yield _case(folder, f'{tag} by {flag}', 'train', content, flag=flag)
            assert not hostile.exists(), 'code in an options file was run'


def _begin(module: Any, is_train: bool, root: str) -> None:
    """BasicSR's pipeline up to the first iteration, without folders and logs: what passes the checks must run."""
    opt, _ = module.parse_options(root, is_train=is_train)
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        data = module.build_dataset(dataset)
        items = [data[i] for i in range(len(data))]
        if phase == 'train':
            model = module.build_model(opt)
            model.feed_data({key: torch.stack([item[key] for item in items]) for key in ('lq', 'gt')})
            model.update_learning_rate(1, warmup_iter=opt['train'].get('warmup_iter', -1))
            model.optimize_parameters(1)


def _case(folder: Path, name: str, mode: str, content: str | bytes, names: str = '', may_pass: bool = False,
          flag: str = '-opt FILE') -> Case:
    import basicsr
    path = folder / 'bad.yml'
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    def run() -> int:
        vars(getattr(basicsr, mode)).update(PIPELINES[mode])  # a command wraps what it finds there, once per process
        sys.argv = [mode, *flag.replace('FILE', str(path)).split(' ')]
        return main(mode, str(folder))

    return Case(name, run, names, may_pass)


def good_options(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """The project's own options files, on tiny photos and networks."""
    photos = folder / 'photos'
    for side in ('gt', 'lq'):
        (photos / side).mkdir(parents=True, exist_ok=True)
        for name in ('astronaut', 'coffee'):
            Image.fromarray(getattr(skimage.data, name)()).resize((72, 64)).save(photos / side / f'{name}.png')
    (folder / 'list.txt').write_text('astronaut.png (64,72,3)\ncoffee.png (64,72,3)\n')
    weights = str(tiny_weights(folder))
    demo, test, baseline = (yaml.safe_load((OPTIONS / name).read_text()) for name in (
        'train_demo.yml', 'small/test_small.yml', 'baselines/train_gopro_mimo_unet.yml'))
    for options in (demo, test):
        options['network_g'] = copy.deepcopy(NETWORK)
        options['path']['pretrain_network_g'] = weights
        for dataset in options['datasets'].values():
            dataset['dataroot_gt'] = str(photos / 'gt')
    test['datasets']['test']['gt_size'] = 32
    demo['datasets']['train'].update(gt_size=32, batch_size_per_gpu=2)
    demo['network_g']['sampling'] = {'sampler': 'ddim', 'steps': 2, 'eta': 0.5, 'final_variance': 0.5, 'seed': 1, 'clamp': True}
    for dataset in baseline['datasets'].values():
        dataset.update(dataroot_gt=str(photos / 'gt'), dataroot_lq=str(photos / 'lq'), io_backend={'type': 'disk'})
        dataset['meta_info_file'] = str(folder / 'list.txt')
    baseline['datasets']['train'].update(gt_size=32, batch_size_per_gpu=2, filename_tmpl='{}')
    return {'demo': ('train', demo), 'test': ('test', test), 'baseline': ('train', baseline)}


def _data(rng: random.Random, folder: Path, options: dict[str, Any]) -> Iterator[Case]:
    """Damaged lists of images, LMDBs and images, behind sound options."""
    import lmdb

    def with_file(words: str, file: Path, content: bytes, text: str, names: str, may_pass: bool = False) -> Case:
        case, before = _case(folder, words, 'train', text), file.read_bytes()

        def run() -> int:
            file.write_bytes(content)
            try:
                return case.run()
            finally:
                file.write_bytes(before)

        return Case(words, run, names, may_pass)

    text, listed = yaml.safe_dump(options), folder / 'list.txt'
    for words, content in {'nothing': b'', 'not UTF-8': b'\xff\xfe\xfd.png\n', 'another image': b'mars.png (64,72,3)\n',
                           'a picture': b'\x89PNG\r\n\x1a\n\0\0', 'elsewhere': b'../../../etc/passwd\n'}.items():
        yield with_file(f'meta_info_file: {words}', listed, content, text, 'list.txt')
    image = folder / 'photos' / 'lq' / 'coffee.png'
    for words, content in damaged(image.read_bytes(), rng, cuts=6):
        yield with_file(f'image: {words}', image, content, text, 'coffee.png')

    changed = copy.deepcopy(options)
    del changed['datasets']['val']
    for side in ('gt', 'lq'):
        path = folder / f'{side}.lmdb'
        with lmdb.open(str(path), map_size=2**22) as base, base.begin(write=True) as content:
            for name in ('astronaut', 'coffee'):
                content.put(name.encode(), (folder / 'photos' / side / f'{name}.png').read_bytes())
        (path / 'meta_info.txt').write_text('astronaut.png (64,72,3) 1\ncoffee.png (64,72,3) 1\n')
        changed['datasets']['train'][f'dataroot_{side}'] = str(path)
    changed['datasets']['train'].update(io_backend={'type': 'lmdb'}, meta_info_file=None)
    del changed['val']
    text = yaml.safe_dump(changed)
    yield _case(folder, 'LMDB: sound', 'train', text, may_pass=True)
    meta, base = folder / 'lq.lmdb' / 'meta_info.txt', folder / 'lq.lmdb' / 'data.mdb'
    for words, content in {'nothing': b'', 'not UTF-8': b'\xff\xfe', 'another image': b'mars.png (64,72,3) 1\n',
                           'one image': b'coffee.png (64,72,3) 1\n'}.items():
        yield with_file(f'meta_info.txt: {words}', meta, content, text, 'datasets: ')
    content = base.read_bytes()
    for words, cut in {'nothing': b'', 'cut to a page': content[:4096], 'cut to half': content[:len(content) // 2],
                       'zeros': bytes(len(content)), 'no LMDB': b'hello' * 2000}.items():
        yield with_file(f'data.mdb: {words}', base, cut, text, 'lq.lmdb')


def strangers(text: bytes) -> dict[str, bytes]:
    """Files that are no options, or traps."""
    laughs = '\n'.join(['a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]'] + [
        f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 12)])
    merges = '\n'.join(['b0: &b0 {k: v}'] + [f'b{i}: &b{i} {{<<: [{", ".join([f"*b{i - 1}"] * 10)}]}}' for i in range(1, 12)])
    return {
        'nothing': b'',
        'spaces': b'  \n\n',
        'a number': b'5',
        'a list': b'[1, 2]',
        'words': b'this is no options file',
        'a billion laughs': text + laughs.encode(),
        'a billion merges': text + merges.encode(),
        'a loop': text + b'\nloop: &a [*a]\n',
        'ten thousand brackets': b'[' * 10_000,
        'ten thousand brackets, closed': b'x: ' + b'[' * 10_000 + b']' * 10_000,
        'ten thousand blocks': b''.join(b' ' * i + b'a:\n' for i in range(500)),
        'a mebibyte': text + b'# ' + b'x' * 2**20,
        'Latin-1': text + '\nword: Gr\xfc\xdfe\n'.encode('latin-1'),
        'null bytes': text + b'\nword: \0\n',
        'UTF-16 cut short': text.decode().encode('utf-16')[:1001],
        'a PNG': b'\x89PNG\r\n\x1a\n' + bytes(range(256)),
        'a pickle': b'\x80\x04cposix\nsystem\n(Vfalse\ntR.',
        'tabs': text.replace(b'  ', b'\t'),
        'two documents': text + b'\n---\n' + text,
        'keys that are numbers': b'1: 2\n' + text,
        'keys that are lists': b'? [1, 2]\n: 3\n' + text,
        'an impossible date': text + b'\nwhen: 2024-99-99\n',
        'a number of 10000 digits': text + b'\nmanual: ' + b'9' * 10_000 + b'\n',
        'no number': text + b'\nmanual: !!int "five"\n',
        'an unknown alias': text + b'\nx: *nothing\n',
        'an unknown tag': text + b'\nx: !thing 5\n',
        'JSON cut short': b'{"name": "x", "datasets": {',
    }
