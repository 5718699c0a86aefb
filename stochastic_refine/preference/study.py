"""Human preference studies: a page of blinded side-by-side crops for raters' browsers.

The page holds images and opaque codes only. What the codes mean is in the key, a file of its own that raters must not get and
that :mod:`~stochastic_refine.preference.files` reads together with the raters' answers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..comparison.pairs import check_kind, match_names, named_images
from ..comparison.protocols import spread_evenly
from ..errors import InputError
from ..files import write_json, write_text
from .crops import CROP_CHOICES, REFERENCE, Album, Box, blurred_more, choose_box, codes, cut

KEY_FORMAT = 'stochastic-refine preference key 1'
#: Written by the page, so it stands in preference.html too.
ANSWERS_FORMAT = 'stochastic-refine preference answers 1'
#: Choices faster than this are ignored: nobody has compared two images by then.
MINIMUM_MS = 400
LARGE_PAGE = 100 * 2**20



@dataclass(frozen=True)
class Study:
    """What was built.

    Attributes:
        study: Code of the study.
        page, key: The files written.
        size: Bytes of the page.
        images: Number of photos.
        sheets: Number of question sheets; each rater fills in one.
        questions: Questions of the longest sheet, with checks and repeats.
        notes: Sentences that the organiser should read.
    """

    study: str
    page: Path
    key: Path
    size: int
    images: int
    sheets: int
    questions: int
    notes: tuple[str, ...]

    @property
    def words(self) -> str:
        """What was written and what to do with it."""
        sheets = 'one question sheet'
        if self.sheets > 1:
            sheets = f'{self.sheets} question sheets, one per rater at random ({self.page.name}#sheet=2 gives sheet 2)'
        return '\n'.join([
            f'Study {self.study}: {self.images} photos, {sheets}, up to {self.questions} questions each.',
            f'For the raters: {self.page} ({self.size / 2**20:.1f} MiB). For you alone: {self.key}.',
            *self.notes,
        ])


def design(methods: int, images: int, per_rater: int, generator: random.Random) -> list[list[tuple[int, int, int]]]:
    """Question sheets that together compare every pair of methods once on every image.

    In each sheet the pairs of methods are equally frequent up to one, each pair's sides alternate, and the images are spread.

    Args:
        methods, images: How many there are.
        per_rater: Largest number of comparisons in a sheet.
        generator: Source of randomness.

    Returns:
        Sheets of (image, method on the left, method on the right), all counted from 0.
    """
    pairs = list(itertools.combinations(range(methods), 2))
    order = list(range(images))
    generator.shuffle(pairs)
    generator.shuffle(order)
    swapped = [generator.randrange(2) for _ in pairs]
    # In every round each pair gets its next image; the pairs start at places evenly spaced over the images.
    comparisons = [
        (order[(turn + index * images // len(pairs)) % images], *(pair[::-1] if (turn + swapped[index]) % 2 else pair))
        for turn in range(images) for index, pair in enumerate(pairs)
    ]
    sheets = -(-len(comparisons) // per_rater)
    ends = [number * len(comparisons) // sheets for number in range(sheets + 1)]
    return [comparisons[start:end] for start, end in itertools.pairwise(ends)]


def build_study(systems: Sequence[str],
                output: Path,
                reference: Path | None = None,
                per_rater: int = 60,
                max_images: int = 24,
                crop_size: int = 512,
                crops: str = 'texture',
                checks: int = 8,
                repeats: int = 4,
                quality: int | None = None,
                seed: int = 0) -> Study:
    """Write the page and its key.

    Args:
        systems: ``NAME=FOLDER`` each, folders of restored images paired by name.
        output: The page; the key is written beside it as ``STEM.key.json``.
        reference: Folder of sharp images. They are a method of their own, called ``Reference``, as in Table 3 of the paper.
        per_rater: Largest number of comparisons that one rater makes.
        max_images: Use so many photos, spread evenly (the paper: 24).
        crop_size: Side of the crops in pixels; a smaller photo is shown whole.
        crops: ``texture`` takes the crop with most detail of 16 random ones in each photo, ``random`` the first.
        checks: Questions per sheet with an obvious answer: an image against a strongly blurred copy of itself.
        repeats: Comparisons per sheet that are asked again with swapped sides.
        quality: WebP quality, 1 to 100; None embeds lossless WebP, which cannot bias the choice.
        seed: Same seed, same images: same page.

    Raises:
        InputError: If names, folders or images do not fit, or the page would be too large for a browser.
    """
    output = _page_path(output)
    if crops not in CROP_CHOICES:
        raise InputError(f"--crops must be texture or random, got '{crops}'.")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f'--quality must be from 1 to 100, got {quality}.')
    photos, count = _paired_photos(systems, reference)
    photos = {name: photos[name] for name in spread_evenly(list(photos), max_images)}
    names, methods = list(photos), list(next(iter(photos.values())))

    generator = random.Random(seed)
    album = Album(codes(generator), quality)
    shown: list[dict[str, str]] = []  # code by method, for each photo
    boxes: list[Box] = []
    details: list[float] = []
    for name in tqdm(names, desc='Crops', unit='photo'):
        box, detail = choose_box(photos[name], crop_size, generator, crops)
        boxes.append(box)
        details.append(detail)
        shown.append({method: album.add(cut(path, box), kind='method', method=method, photo=name)
                      for method, path in photos[name].items()})

    obvious = []  # (photo, sharp, blurred); blur is plainest where there is most detail
    for number, photo in enumerate(sorted(range(len(names)), key=lambda index: -details[index])[:checks]):
        method = REFERENCE if reference else methods[number % count]
        blurred = blurred_more(cut(photos[names[photo]][method], boxes[photo]))
        obvious.append((photo, shown[photo][method], album.add(blurred, kind='blurred', method=method, photo=names[photo])))
    comparisons = design(count, len(names), per_rater, generator)
    questions, sheets = _ask(comparisons, shown, methods, obvious, checks, repeats, album.codes, generator)

    # In the order of their codes, which tells nothing.
    content = {'minimum_ms': MINIMUM_MS, 'sheets': sheets, 'images': dict(sorted(album.embedded.items()))}
    study = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    template = Path(__file__).with_name('page.html').read_text(encoding='utf-8')
    page = template.replace('{{STUDY}}', json.dumps({'study': study, **content}, separators=(',', ':')), 1)
    key = {
        'format': KEY_FORMAT,
        'study': study,
        'version': __version__,
        'settings': {'systems': list(systems), 'reference': str(reference) if reference else None, 'photos': len(names),
                     'crop_size': crop_size, 'crops': crops, 'per_rater': per_rater, 'checks': checks, 'repeats': repeats,
                     'quality': quality or 'lossless', 'seed': seed},
        'methods': methods,
        'boxes': dict(zip(names, boxes)),
        'images': album.meanings,
        'questions': questions,
        'sheets': [[question['id'] for question in sheet] for sheet in sheets],
    }
    key_path = output.with_suffix('.key.json')
    write_json(key_path, key)
    write_text(output, page)
    return Study(study, output, key_path, len(page.encode()), len(names), len(sheets), max(map(len, sheets)),
                 tuple(_notes(len(page.encode()), count, per_rater, checks, crops)))


def _ask(comparisons: list[list[tuple[int, int, int]]], shown: list[dict[str, str]], methods: list[str],
         obvious: list[tuple[int, str, str]], checks: int, repeats: int, codes: Iterator[str],
         generator: random.Random) -> tuple[dict[str, dict[str, str]], list[list[dict[str, Any]]]]:
    """What the key and the page hold of the questions: their meaning by code, and the sheets.

    The page swaps the sides of whole groups (all questions of a pair of methods; all checks) by one coin each, so the balance
    of sides in a sheet holds for every rater, and a repeat stays the mirror image of its question.
    """
    pairs = list(map(frozenset, itertools.combinations(range(len(methods)), 2)))
    of_checks, *groups = generator.sample(range(len(pairs) + 1), len(pairs) + 1)
    group_of = dict(zip(pairs, groups))
    questions: dict[str, dict[str, str]] = {}
    sheets: list[list[dict[str, Any]]] = []

    def ask(photo: int, left: str, right: str, group: int, **meaning: str) -> str:
        code = next(codes)
        questions[code] = {**meaning, 'left': left, 'right': right}
        sheets[-1].append({'id': code, 'left': left, 'right': right, 'photo': photo, 'group': group})
        return code

    for sheet in comparisons:
        sheets.append([])
        again = set(generator.sample(range(len(sheet)), min(repeats, len(sheet))))
        for index, (photo, first, second) in enumerate(sheet):
            left, right = shown[photo][methods[first]], shown[photo][methods[second]]
            group = group_of[frozenset((first, second))]
            code = ask(photo, left, right, group, kind='pair')
            if index in again:
                ask(photo, right, left, group, kind='repeat', repeats=code)
        for number in range(checks):
            photo, sharp, blurred = obvious[number % len(obvious)]
            ask(photo, *((sharp, blurred) if number % 2 else (blurred, sharp)), of_checks, kind='check', answer=sharp)
        generator.shuffle(sheets[-1])  # else the place in the file would tell the kind
    return questions, sheets


def _notes(size: int, count: int, per_rater: int, checks: int, crops: str) -> list[str]:
    notes = []
    if size > LARGE_PAGE:
        notes.append(f'The page has {size / 2**20:.0f} MiB, which phones may not open; fewer photos (--max-images) or '
                     '--quality 95 make it smaller.')
    if per_rater < count * (count - 1) // 2:
        notes.append(f'A rater sees {per_rater} of the {count * (count - 1) // 2} pairs of methods; use --pairs-per-rater '
                     f'{count * (count - 1) // 2} or more so that each rater sees all.')
    if checks < 5:
        notes.append(f'With {checks} checks, a rater who clicks at random is not told apart reliably; 8 are better.')
    if crops == 'texture':
        notes.append('Crops with much detail favour methods that invent detail, flat ones those that average (paper, Sec. 5.5);'
                     ' use --crops random for any place.')
    return notes


def _page_path(output: Path) -> Path:
    if output.suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'The page {output} must be a file ending in .html; give it with -o.')
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'Folder {output.parent} cannot be made ({error.strerror}); choose another one.') from error
    return output


def _paired_photos(systems: Sequence[str], reference: Path | None) -> tuple[dict[str, dict[str, Path]], int]:
    """Paths by photo and method, and the number of methods.

    Raises:
        InputError: If names are missing or used twice, photos do not pair up, or differ in size.
    """
    folders: dict[str, Path] = {}
    for text in systems:
        name, equals, folder = text.partition('=')
        if not (equals and name.strip() and folder):
            raise InputError(f"'{text}' is no NAME=FOLDER; write for example Ours=results/ours.")
        if name.strip() in folders or name.strip() == REFERENCE:
            raise InputError(f"The name '{name.strip()}' is given to more than one method; write NAME=FOLDER with names of "
                             'their own.')
        folders[name.strip()] = Path(folder)
    if reference:
        folders[REFERENCE] = reference
    if len(folders) < 2:
        raise InputError('A study compares two methods or more; give another NAME=FOLDER, or --reference.')
    names = list(named_images(reference or next(iter(folders.values()))))
    found = {method: match_names(names, folder) for method, folder in folders.items()}
    photos = {name: {method: paths[name] for method, paths in found.items()} for name in names}
    for paths in photos.values():
        first, *others = paths.values()
        size = check_kind(first)
        for path in others:
            if check_kind(path) != size:
                raise InputError(f'{path} and {first} differ in size; every method must have restored the same photo.')
    return photos, len(folders)


