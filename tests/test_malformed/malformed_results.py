"""Damaged files of evaluations, sweeps and preference studies, given to the commands that read them."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from damage import damaged, leaves, replaced
from malformed_child import Case
from PIL import Image, ImageFilter
from tiny import tiny_weights

from stochastic_refine.cli import main
from stochastic_refine.errors import InputError
from stochastic_refine.preference.study import ANSWERS_FORMAT
from stochastic_refine.sweep.search import sweep
from stochastic_refine.sweep.setup import grid, source_of

WRONG = [None, 'text', 5, -1, 10**30, 0.5, True, [], [1], {}, {'a': 1}]


def cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    gt, lq = folder / 'gt', folder / 'lq'
    for name, seed in (('one', 1), ('two', 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).filter(ImageFilter.BoxBlur(2))
        for root, blur in ((gt, 0), (lq, 3)):
            root.mkdir(exist_ok=True)
            image.filter(ImageFilter.BoxBlur(blur)).save(root / f'{name}.png')
    yield from _evaluations(rng, folder, gt, lq)
    yield from _sweeps(rng, folder, gt, lq)
    yield from _studies(rng, folder, gt, lq)


def _quietly(arguments: list[str]) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return main(arguments)


def _with_file(name: str, file: Path, content: bytes, run: Callable[[], int], names: str = '', may_pass: bool = False) -> Case:
    """A case in which the file has another content; it is as before afterwards."""

    def changed() -> int:
        before = file.read_bytes()
        file.write_bytes(content)
        try:
            return run()
        finally:
            file.write_bytes(before)

    return Case(name, changed, names, may_pass)


def _changes(rng: random.Random, file: Path, count: int, cuts: int = 2) -> Iterator[tuple[str, bytes]]:
    """Damaged bytes, and for JSON wrong types of ``count`` leaves, bombs and other roots."""
    content = file.read_bytes()
    yield from damaged(content, rng, cuts, flips=(1, 16))
    yield from {'nothing': b'', 'brackets': b'[' * 100_000, 'not UTF-8': content + b'\xff', 'a null': content + b'\0'}.items()
    if file.suffix == '.json':
        value = json.loads(content)
        for path, _ in rng.sample([*leaves(value)], min(count, len([*leaves(value)]))):
            new = rng.choice(WRONG)
            yield f'{".".join(map(str, path))} = {new}', json.dumps(replaced(value, path, new)).encode()
        for root in WRONG if cuts > 1 else WRONG[-2:]:
            yield f'all = {root}', json.dumps(root).encode()


def _evaluations(rng: random.Random, folder: Path, gt: Path, lq: Path) -> Iterator[Case]:
    weights, out = tiny_weights(folder), folder / 'evaluated'
    evaluate = ['evaluate', f'A={weights}', '--gt', str(gt), '--lq', str(lq), '-o', str(out), '--metrics', 'psnr', '--device',
                'cpu']
    report = ['report', str(out), '-o', str(folder / 'report.html')]
    assert _quietly(evaluate) == 0
    line = {'cell': 'ancestral-T1', 'images': 2, 'eliminated': None, 'psnr': 20.5}
    (out / 'cells.jsonl').write_text(json.dumps(line) + '\n')
    assert _quietly(report) == 0
    for file, count in (('table.json', 25), ('images.json', 8), ('scores.csv', 0), ('cells.jsonl', 0)):
        for words, content in _changes(rng, out / file, count):
            yield _with_file(f'{file}: {words}', out / file, content, lambda: _quietly(report), str(out), may_pass=True)
    for words, content in {'a seed of 1e12': b'row,seed,image,metric,score\nA,1000000000000,one,psnr,5\n',
                           'a seed of -1': b'row,seed,image,metric,score\nA,-1,one,psnr,5\n',
                           'no number': b'row,seed,image,metric,score\nA,0,one,psnr,five\n'}.items():
        yield _with_file(f'scores.csv: {words}', out / 'scores.csv', content, lambda: _quietly(report), 'scores.csv')
    for file in [*out.rglob('*/cache/**/*.json')][:1] + [*out.rglob('*/one.png')][:1]:  # made again without a word
        for words, content in _changes(rng, file, 3, cuts=1):
            yield _with_file(f'cache of evaluate, {file.name}: {words}', file, content, lambda: _quietly(evaluate),
                             may_pass=True)
    for file in (gt / 'one.png', lq / 'one.png'):
        whole = file.read_bytes()
        for words, content in damaged(whole, rng, cuts=2, flips=(4, )):
            has_pixels = len(content) > len(whole) - 12  # all but the mark at the end
            yield _with_file(f'{file.parent.name}/one.png: {words}', file, content, lambda: _quietly(evaluate), 'one.png',
                             may_pass='cut' not in words or has_pixels)


def _sweeps(rng: random.Random, folder: Path, gt: Path, lq: Path) -> Iterator[Case]:
    cells, pair, out = grid(steps=(1, ), final_variances=(0.5, ), counts=(1, )), ('ssim3d', 'psnr'), folder / 'swept'

    def run() -> int:
        try:
            sweep(*source_of(weights=str(folder / 'tiny.safetensors'), gt=gt, lq=lq), cells, pair, pair, out, 'cpu')
        except InputError as error:
            print(f'Error: {error}', file=sys.stderr)
            return 2
        return 0

    assert run() == 0
    file = next(path for path in out.rglob('*.json') if path.name != 'sweep.json')
    for words, content in _changes(rng, file, 20):
        yield _with_file(f'store of sweep: {words}', file, content, run, may_pass=True)


def _studies(rng: random.Random, folder: Path, gt: Path, lq: Path) -> Iterator[Case]:
    page = folder / 'page.html'
    assert _quietly(['study', 'preference', '--build', f'A={lq}', f'B={gt}', '-o', str(page), '--crop-size', '32', '--checks',
                     '0', '--repeats', '1']) == 0
    key_file, answers_file = page.with_suffix('.key.json'), folder / 'answers.json'
    key = json.loads(key_file.read_text())
    answers: list[dict[str, Any]] = []
    for code in key['sheets'][0]:
        question = key['questions'][code]
        answers.append({'question': code, 'left': question['left'], 'right': question['right'], 'chosen': question['left'],
                        'ms': 1000, 'scale': 1})
    answers_file.write_text(json.dumps({'format': ANSWERS_FORMAT, 'study': key['study'], 'rater': '0' * 12, 'sheet': 1,
                                        'answers': answers}))
    out = folder / 'tally'

    def run() -> int:
        shutil.rmtree(out, ignore_errors=True)
        return _quietly(['study', 'preference', '--tally', str(answers_file), '--key', str(key_file), '-o', str(out)])

    assert run() == 0
    for file, count in ((key_file, 30), (answers_file, 30)):
        for words, content in _changes(rng, file, count):
            yield _with_file(f'{file.name}: {words}', file, content, run, may_pass=True)
