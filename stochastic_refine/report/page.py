"""``stochastic-refine report``: evaluations as one HTML page that needs no network and no server.

The page is ``report.html`` beside this file, with the data put in. All images of one scene are one block of text, base64 in
JSON, which the browser neither parses nor decodes before somebody looks at that scene; so the page opens fast however many
there are. With linked images the blocks are scripts in a folder beside the page: unlike images from files, browsers let a page
from a file read their pixels, which the difference and standard deviation views need.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..comparison.columns import UNRANKED_ROWS, Score
from ..comparison.tables import Row
from ..data.image_files import SYSTEM_FILES
from ..data.synthetic_blur_dataset import read_rgb
from ..errors import InputError
from ..files import write_atomically, write_text
from ..processes import run_parallel
from .gather import Evaluation, gather

#: Bytes of images in a page with embedded images; beyond, browsers take long to open it.
BUDGET = 80 * 10**6
#: Longest side of embedded images: a frame of GoPro passes as it is.
MAX_SIDE = 1280
LOSSLESS, LOSSY = 100, 90
_THUMBNAIL = 144
_PROBES = 4
_OURS = re.compile(r'\d+\.js')


@dataclass(frozen=True)
class _Job:
    """The images of one scene: files by row and seed, of which the first is the thumbnail's; read by ``read``."""

    number: int
    files: tuple[tuple[Path, ...], ...]
    quality: int
    max_side: int | None
    folder: Path | None
    read: Callable[[Path], NDArray[np.uint8]] = read_rgb


@dataclass(frozen=True)
class _Encoded:
    """A scene for the page; ``block`` is None once it is in a file of its own."""

    width: int
    height: int
    reduced: bool
    thumbnail: str
    bytes: int
    block: str | None


def write_report(runs: Sequence[Path],
                 output: Path,
                 images: str = 'embedded',
                 max_images: int | None = None,
                 quality: int | None = None,
                 max_side: int | None = None,
                 title: str | None = None,
                 workers: int = 1) -> str:
    """Write the page.

    Args:
        runs: Output folders of ``stochastic-refine evaluate``, all of the same images under the same protocol; those of
            ``stochastic-refine sweep`` add points to the plot.
        output: The page, ``*.html``. With linked images there is a folder ``*_images`` beside it.
        images: ``embedded`` or ``linked``.
        max_images: Use so many scenes only, spread evenly.
        quality: Of the WebP images, 1 to 99; 100 is lossless. None takes 100, or 90 if the embedded images are too large so.
        max_side: Larger images are scaled down to this side in pixels. None takes 1280 for embedded images and leaves linked
            ones as they are.
        title: Heading of the page.
        workers: Processes that encode images.

    Returns:
        A sentence about what was written.

    Raises:
        InputError: If the runs cannot be read or merged, images are missing, or embedded ones are too many.
    """
    output = Path(output)
    if output.suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'The report {output} must be a file that ends with .html.')
    evaluation = gather([Path(run) for run in runs], max_images)
    if max_side is None and images == 'embedded':
        max_side = MAX_SIDE
    qualities = [quality] if quality else [LOSSLESS, LOSSY] if images == 'embedded' else [LOSSLESS]
    scenes = [tuple(tuple(files[name] for files in seeds) for seeds in evaluation.images.values()) for name in evaluation.names]
    output.parent.mkdir(parents=True, exist_ok=True)
    if images == 'linked':
        folder = output.with_name(f'{output.stem}_images')
        chosen, encoded = qualities[0], write_linked(scenes, folder, qualities[0], max_side, workers)
    else:
        folder = None
        chosen, encoded = embed(scenes, qualities, max_side, workers)
    title = title or f'Evaluation: {evaluation.table.title}'
    write_page(output, _data(evaluation, encoded, chosen, folder, title), encoded)
    size = output.stat().st_size / 1e6
    beside = f' and {sum(scene.bytes for scene in encoded) / 1e6:.1f} MB in {folder}, which belongs beside it' if folder else ''
    return f'{output}: {len(encoded)} images, {len(evaluation.images)} rows with images, {size:.1f} MB{beside}.'


def embed(scenes: Sequence[tuple], qualities: Sequence[int], max_side: int | None, workers: int,
          read: Callable[[Path], NDArray[np.uint8]] = read_rgb) -> tuple[int, list[_Encoded]]:
    """Encode at the first quality whose size is within the budget, as estimated from a few scenes."""
    probes = scenes if len(scenes) <= _PROBES else [scenes[i * len(scenes) // _PROBES] for i in range(_PROBES)]
    for quality in qualities:
        job = partial(_Job, quality=quality, max_side=max_side, folder=None, read=read)
        sizes = [_encode(job(0, probe)).bytes for probe in probes]
        estimate = sum(sizes) * len(scenes) / len(probes)
        if estimate <= BUDGET:
            return quality, run_parallel(_encode, [job(i, scene) for i, scene in enumerate(scenes)], workers, 'Encoding')
    fitting = max(1, int(len(scenes) * BUDGET / estimate))
    raise InputError(f'The page would hold about {estimate / 1e6:.0f} MB of images at quality {qualities[-1]}, over the '
                     f'{BUDGET / 1e6:.0f} MB that browsers open quickly; give --images linked, --max-images {fitting}, or '
                     'a lower --quality or --max-side.')


def write_linked(scenes: Sequence[tuple], folder: Path, quality: int, max_side: int | None, workers: int,
                 read: Callable[[Path], NDArray[np.uint8]] = read_rgb) -> list[_Encoded]:
    """Encode into ``folder``, which is replaced as a whole."""
    if folder.exists() and not (folder.is_dir() and all(_OURS.fullmatch(path.name) or path.name.lower() in SYSTEM_FILES
                                                       for path in folder.iterdir())):
        raise InputError(f'{folder} holds other things than the images of a report; move it away or choose another -o.')
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    except OSError as error:
        raise InputError(f'Nothing can be written to {folder.parent} ({error.strerror}); choose another -o.') from error
    try:
        jobs = [_Job(i, scene, quality, max_side, temporary, read) for i, scene in enumerate(scenes)]
        encoded = run_parallel(_encode, jobs, workers, 'Encoding')
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return encoded


def _encode(job: _Job) -> _Encoded:
    pictures = [[Image.fromarray(job.read(path)) for path in seeds] for seeds in job.files]
    full = pictures[0][0].size
    for seeds, files in zip(pictures, job.files):
        for picture, path in zip(seeds, files):
            if picture.size != full:
                raise InputError(f'{path} is {picture.width}x{picture.height} pixels but {job.files[0][0]} {full[0]}x'
                                 f'{full[1]}; run stochastic-refine evaluate again.')
            if job.max_side:
                picture.thumbnail((job.max_side, job.max_side), Image.Resampling.LANCZOS)
    thumbnail = pictures[0][0].copy()
    thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    block = json.dumps([[_webp(picture, job.quality) for picture in seeds] for seeds in pictures], separators=(',', ':'))
    if job.folder:
        text = f'receiveScene({job.number},{block});\n'
        write_text(job.folder / f'{job.number}.js', text)
    width, height = pictures[0][0].size
    return _Encoded(width, height, (width, height) != full, _webp(thumbnail, 75), len(block), None if job.folder else block)


def _webp(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    if quality == LOSSLESS:
        picture.save(buffer, 'WEBP', lossless=True, quality=20, method=1)  # 6 times faster than the default, and 5 % larger
    else:
        picture.save(buffer, 'WEBP', quality=quality)
    return base64.b64encode(buffer.getvalue()).decode('ascii')


def write_page(output: Path, data: dict[str, Any], scenes: Sequence[_Encoded]) -> None:
    """Write the template around the data, whose ``folder`` is that of linked images or None, and the blocks of images."""
    write_atomically(output, lambda temporary: _write_parts(temporary, _page(data, scenes)))


def _page(data: dict[str, Any], scenes: Sequence[_Encoded]) -> Iterator[str]:
    """The page's text in parts."""
    template = Path(__file__).with_name('page.html').read_text(encoding='utf-8')
    values = {'title': html.escape(data['title']), 'data': _json(data), 'scripts': "'self' file:" if data['folder'] else ''}
    for part in re.split(r'(\{\{\w+\}\})', template):
        name = part[2:-2] if part.startswith('{{') else None
        if name == 'scenes':
            if not data['folder']:
                for i, scene in enumerate(scenes):
                    yield f'<script type="text/plain" id="scene-{i}">{scene.block}</script><script>receiveBlock({i})</script>\n'
        else:
            yield part if name is None else values[name]


def _data(evaluation: Evaluation, scenes: Sequence[_Encoded], quality: int, folder: Path | None, title: str) -> dict[str, Any]:
    """Everything of the page but the images."""
    table = evaluation.table
    ranks = table.ranks()
    columns = [column for column in table.columns if any(column.key in row.scores for row in table.rows)]
    pictures = list(evaluation.images)

    def row(index: int, row: Row) -> dict[str, Any]:
        return {
            'name': row.name,
            'published': row.published,
            'role': row.name.lower() if row.name.lower() in UNRANKED_ROWS and not row.published else None,
            'picture': pictures.index(row.name) if not row.published and row.name in evaluation.images else None,
            'samples': len(evaluation.images.get(row.name, ())) if not row.published else 0,
            'scores': {c.key: _score(row.scores[c.key], row.scores[c.key].printed(c), ranks.get((index, c.key)))
                       for c in columns if c.key in row.scores},
            'perImage': {key: [[_number(seed.get(name)) for name in evaluation.names] for seed in seeds]
                         for key, seeds in evaluation.scores.get(row.name, {}).items()} if not row.published else {},
        }

    return {
        'title': title,
        'notes': table.notes,
        'settings': table.settings,
        'columns': [{'key': c.key, 'title': c.title, 'better': c.better, 'decimals': c.decimals} for c in columns],
        'rows': [row(index, entry) for index, entry in enumerate(table.rows)],
        'cells': [{'name': cell['name'], 'scores': {key: _number(value) for key, value in cell['scores'].items()}}
                  for cell in evaluation.cells],
        **about_scenes(evaluation.names, scenes, quality, folder),
    }


def about_scenes(names: Sequence[str], scenes: Sequence[_Encoded], quality: int, folder: Path | None) -> dict[str, Any]:
    """The part of a page's data that is about its images."""
    return {
        'scenes': [{'name': name, 'width': scene.width, 'height': scene.height, 'thumbnail': scene.thumbnail}
                   for name, scene in zip(names, scenes)],
        'quality': quality,
        'lossless': quality == LOSSLESS,
        'reduced': sum(scene.reduced for scene in scenes),
        'folder': folder.name if folder else None,
    }


def _score(score: Score, text: str, rank: int | None) -> dict[str, Any]:
    return {'value': _number(score.mean), 'spread': _number(score.spread), 'count': score.count, 'text': text, 'rank': rank}


def _number(value: float | None) -> float | str | None:
    """A number for JSON: rounded to six figures; NaN is null, infinities are ``"inf"`` and ``"-inf"``."""
    if value is None or math.isnan(value):
        return None
    return float(f'{value:.6g}') if math.isfinite(value) else str(value)


def _json(value: Any) -> str:
    """JSON that nothing in it can end: inside a script element, ``</script`` and ``<!--`` would."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
    return text.replace('<', '\\u003c').replace('\u2028', '\\u2028').replace('\u2029', '\\u2029')


def _write_parts(path: str, parts: Iterator[str]) -> None:
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        file.writelines(parts)
