"""Human preference studies: balance and blinding of the page, the page in a browser, closed forms of the tally."""

from __future__ import annotations

import collections
import itertools
import json
import math
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from stochastic_refine.cli import main
from stochastic_refine.errors import InputError
from stochastic_refine.preference import study as preference
from stochastic_refine.preference.study import ANSWERS_FORMAT, build_study, design
from stochastic_refine.preference.tally import Share, strengths, tally


@pytest.fixture(scope='module')
def folders(photos, tmp_path_factory):
    """Three methods beside the sharp photos, each blurrier than the one before."""
    root = tmp_path_factory.mktemp('methods')
    for name, radius in (('mildest', 0.5), ('medium', 1), ('strongest', 2)):
        (root / name).mkdir()
        for path in photos.iterdir():
            Image.open(path).filter(ImageFilter.GaussianBlur(radius)).save(root / name / path.name)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope='module')
def study(folders, photos, tmp_path_factory):
    """A study of four methods with two sheets, and its key."""
    built = build_study([f'{name.title()}={folder}' for name, folder in sorted(folders.items())],
                        tmp_path_factory.mktemp('study') / 'page.html', photos, per_rater=12, crop_size=32, checks=4, repeats=2)
    return built, json.loads(built.key.read_text())


def embedded(page):
    return json.loads(re.search(r'<script id="study" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def rated(key, choose, sheet=1, rater='0' * 12, folder=None):
    """An answers file as the page saves it; ``choose(left, right, question)`` gets the meanings of the codes."""
    answers = []
    for code in key['sheets'][sheet - 1]:
        question = key['questions'][code]
        left, right = (key['images'][question[side]] for side in ('left', 'right'))
        chosen = question['right' if choose(left, right, question) else 'left']
        sides = {side: question[side] for side in ('left', 'right')}
        answers.append({'question': code, **sides, 'chosen': chosen, 'ms': 900, 'scale': 1})
    path = folder / f'answers_{rater}.json'
    content = {'format': ANSWERS_FORMAT, 'study': key['study'], 'rater': rater, 'sheet': sheet, 'answers': answers}
    path.write_text(json.dumps(content))
    return path


def careful(left, right, question):
    """Passes every check, prefers the sharper method."""
    if question['kind'] == 'check':
        return question['answer'] == question['right']
    order = ['Strongest', 'Medium', 'Mildest', 'Reference']
    return order.index(right['method']) > order.index(left['method'])


@pytest.mark.parametrize(('methods', 'images', 'per_rater'), [(5, 24, 60), (4, 7, 10), (2, 5, 100), (5, 3, 8)])
def test_the_design_is_balanced(methods, images, per_rater):
    sheets = design(methods, images, per_rater, random.Random(0))
    everything = [item for sheet in sheets for item in sheet]
    pairs = list(itertools.combinations(range(methods), 2))
    once = sorted((image, *pair) for image in range(images) for pair in pairs)
    assert sorted((image, *sorted(pair)) for image, *pair in everything) == once
    for sheet in sheets:
        assert len(sheet) <= per_rater
        counts = collections.Counter(tuple(sorted(pair)) for _, *pair in sheet)
        assert max(counts[pair] for pair in pairs) - min(counts[pair] for pair in pairs) <= 1
        for pair in pairs:
            lefts = collections.Counter(left for _, *sides in sheet for left in sides[:1] if tuple(sorted(sides)) == pair)
            assert abs(lefts[pair[0]] - lefts[pair[1]]) <= 1
    if (methods, images, per_rater) == (5, 24, 60):
        assert [len(sheet) for sheet in sheets] == [60] * 4
        assert all({image for image, *_ in sheet} == set(range(images)) for sheet in sheets)


def test_the_page_is_blind(study):
    built, key = study
    page, content = built.page.read_text(), embedded(built.page)
    shell = page.replace(re.search(r'application/json">(.*?)</script>', page, re.DOTALL)[1], '{{STUDY}}')
    assert shell == Path(preference.__file__).with_name('page.html').read_text()
    assert content.keys() == {'study', 'minimum_ms', 'sheets', 'images'}
    for sheet in content['sheets']:
        for question in sheet:
            assert question.keys() == {'id', 'left', 'right', 'photo', 'group'}
            assert all(re.fullmatch('[0-9a-f]{10}', question[name]) for name in ('id', 'left', 'right'))
    assert list(content['images']) == sorted(key['images'])
    assert not re.search(r'(src|href)="?(https?:)?//|fetch\(|XMLHttpRequest|sendBeacon', shell)


def test_each_sheet_has_its_checks_and_mirrored_repeats(study, photos):
    _, key = study
    assert key['methods'] == ['Medium', 'Mildest', 'Strongest', 'Reference'] and len(key['sheets']) == 2
    for sheet in key['sheets']:
        questions = [key['questions'][code] for code in sheet]
        assert collections.Counter(question['kind'] for question in questions) == {'pair': 12, 'check': 4, 'repeat': 2}
        checks = [question for question in questions if question['kind'] == 'check']
        assert sum(check['answer'] == check['left'] for check in checks) == 2  # one side always clicked fails half of them
        for check in checks:
            other = check['right'] if check['answer'] == check['left'] else check['left']
            assert key['images'][check['answer']]['method'] == 'Reference' and key['images'][other]['kind'] == 'blurred'
            assert key['images'][other]['photo'] == key['images'][check['answer']]['photo']
        for question in questions:
            if question['kind'] == 'repeat':
                first = key['questions'][question['repeats']]
                assert question['repeats'] in sheet and (first['left'], first['right']) == (question['right'], question['left'])


def test_crops_are_the_photos_pixels(study, photos):
    import base64
    import io
    built, key = study
    content = embedded(built.page)
    for code, meaning in key['images'].items():
        if (meaning['kind'], meaning['method']) == ('method', 'Reference'):
            crop = Image.open(io.BytesIO(base64.b64decode(content['images'][code])))
            expected = Image.open(photos / f"{meaning['photo']}.png").crop(key['boxes'][meaning['photo']])
            assert crop.size == (32, 32) and np.array_equal(crop.convert('RGB'), expected)


def test_a_build_that_cannot_be_says_why(folders, photos, tmp_path):
    page = tmp_path / 'page.html'
    ours = f"Ours={folders['medium']}"
    for systems, words in (([ours], 'two methods'), ([ours, ours], 'more than one'), ([ours, 'x'], 'no NAME=FOLDER'),
                           ([ours, f'x={tmp_path}/none'], 'does not exist')):
        with pytest.raises(InputError, match=words):
            build_study(systems, page)
    (tmp_path / 'other').mkdir()
    for path in photos.iterdir():
        Image.new('RGB', (30, 30)).save(tmp_path / 'other' / path.name)
    with pytest.raises(InputError, match='differ in size'):
        build_study([ours, f"x={tmp_path / 'other'}"], page)
    assert not page.exists()


def test_wilsons_interval():
    z, n, p = 1.959963984540054, 480, 353 / 480
    middle, half = (p + z**2 / 2 / n) / (1 + z**2 / n), z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    assert Share(353, 480).percent == pytest.approx(100 * p)
    assert Share(353, 480).interval == pytest.approx((100 * (middle - half), 100 * (middle + half)))
    assert all(map(math.isnan, Share(0, 0).interval))


def test_bradley_terry():
    pytest.importorskip('choix')
    two = strengths(np.array([[0, 30], [10, 0]]))
    assert two[0] - two[1] == pytest.approx(math.log(3))  # p / (1 - p)
    true = np.array([1.0, 0.3, -0.2, -1.1])
    expected = 1e6 / (1 + np.exp(true[None] - true[:, None])) * (1 - np.eye(4))
    assert strengths(expected) == pytest.approx(true, abs=1e-6)
    always = strengths(np.array([[0, 10], [0, 0]]))
    assert always[0] - always[1] == pytest.approx(math.log(10.5 / 0.5))
    assert np.isnan(strengths(np.array([[0, 3, 0], [1, 0, 0], [0, 0, 0]]))).all()


def test_tally_counts_ranks_and_rejects(study, tmp_path):
    pytest.importorskip('choix')
    built, key = study
    generator = random.Random(1)

    def noisy(left, right, question):
        better = careful(left, right, question)
        return better if question['kind'] == 'check' or generator.random() < 0.75 else not better

    files = [rated(key, noisy, sheet=1 + number % 2, rater=f'{number:012x}', folder=tmp_path) for number in range(30)]
    files.append(rated(key, lambda *_: False, rater='f' * 12, folder=tmp_path))
    again = tmp_path / 'answers_copy.json'
    shutil.copy(files[0], again)
    result = tally([*files, again], built.key, resamples=50)
    assert [row.name for row in result.ranking.rows] == ['Reference', 'Mildest', 'Medium', 'Strongest']
    for row in result.ranking.rows:
        assert row.scores['low'].mean <= row.scores['strength'].mean <= row.scores['high'].mean
    wins = np.array(result.record['wins'])
    assert result.record['ratings'] == wins.sum() == 30 * 12
    assert (wins + wins.T)[np.triu_indices(4, 1)].tolist() == [60] * 6
    rows = {row.name: row for row in result.percentages.rows if not row.published}
    assert rows['Medium'].scores['Reference'].mean == pytest.approx(100 * wins[0, 3] / 60)
    assert rows['Medium'].scores['Reference'].mean + rows['Reference'].scores['Medium'].mean == pytest.approx(100)
    text = result.to_text()
    assert '360 ratings of 30 raters; 2 of 32 files rejected' in text
    assert '2 of 4 attention checks wrong' in text and 'rater 000000000000 again' in text
    assert 'published' in text and '37.1' in text
    folder = tmp_path / 'out'
    result.write(folder)
    assert json.loads((folder / 'preference.json').read_text())['wins'] == wins.tolist()
    assert '† published' in (folder / 'preference.md').read_text() and 'over' in (folder / 'preference.csv').read_text()


def test_certain_raters_get_a_finite_ranking_that_says_so(study, tmp_path):
    pytest.importorskip('choix')
    built, key = study
    result = tally([rated(key, careful, folder=tmp_path)], built.key)
    text = result.to_text()
    assert 'always or never won' in text and 'one rater' in text and '100.0 % [34.2, 100.0] of 2' in text
    assert all(math.isfinite(row.scores['strength'].mean) for row in result.ranking.rows)
    with pytest.raises(InputError, match='No rater is left'):
        tally([rated(key, lambda *_: True, folder=tmp_path)], built.key)


@pytest.mark.parametrize(('change', 'words'), [
    (lambda c: c.update(study='x'), "answers the study 'x'"),
    (lambda c: c.update(format='y'), 'no file of answers'),
    (lambda c: c.update(sheet=9), 'no question sheet 9'),
    (lambda c: c.update(rater=None), 'number of the rater'),
    (lambda c: c['answers'].pop(), '17 answers are not one to each of the 18'),
    (lambda c: c['answers'].__setitem__(0, c['answers'][1]), 'not one to each'),
    (lambda c: c['answers'][0].update(chosen='z'), 'answer 1 chooses'),
    (lambda c: c['answers'][0].update(left='z'), 'answer 1 shows other images'),
    (lambda c: c['answers'][0].update(ms=None), 'answer 1 lacks its time'),
])
def test_damaged_answers_are_named(study, tmp_path, change, words):
    built, key = study
    path = rated(key, careful, folder=tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        tally([path], built.key)
    assert path.name in str(caught.value)


def test_the_command_line_names_a_damaged_file(study, tmp_path, capsys):
    built, _ = study
    bad = tmp_path / 'answers.json'
    bad.write_text('{"format":')
    assert main(['study', 'preference', '--tally', str(bad), '--key', str(built.key)]) == 2
    assert 'answers.json is damaged' in capsys.readouterr().err
    assert main(['study', 'preference', '--tally', str(bad), '--key', str(built.page)]) == 2
    assert main(['study', 'preference', '--tally', str(bad)]) == 2
    assert '--key' in capsys.readouterr().err


#: Presses a key the moment the next question appears: nobody has looked by then.
TOO_FAST = """() => {
  const pair = document.getElementById('pair');
  let hidden = false;
  window.pressed = false;
  new MutationObserver((_, observer) => {
    hidden ||= pair.classList.contains('waiting');
    if (!hidden || pair.classList.contains('waiting')) return;
    observer.disconnect();
    window.pressed = true;
    dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }));
  }).observe(pair, { attributes: true });
}"""


@pytest.mark.slow
def test_a_rater_in_a_browser(chromium, folders, photos, tmp_path, monkeypatch):
    """Clicks, keys, a step back and a reload in the middle; the file that the browser saves is tallied."""
    pytest.importorskip('choix')
    monkeypatch.setattr(preference, 'MINIMUM_MS', 100)
    page_file = tmp_path / 'page.html'
    built = build_study([f"Medium={folders['medium']}", f"Strongest={folders['strongest']}"], page_file, photos, crop_size=32,
                        checks=4, repeats=1, per_rater=6)
    key, content = json.loads(built.key.read_text()), embedded(page_file)
    code_of = {f'data:image/webp;base64,{data}': code for code, data in content['images'].items()}
    pair_of = {frozenset((question['left'], question['right'])): question for question in key['questions'].values()}
    context = chromium.new_context(viewport={'width': 900, 'height': 600}, accept_downloads=True)
    page = context.new_page()
    problems, requests = [], []
    page.on('console', lambda message: problems.append(message.text))
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on('request', lambda request: requests.append(request.url))
    page.goto(f'{page_file.as_uri()}#sheet=2')
    page.get_by_role('button', name='I agree, start').click()
    total = len(key['sheets'][1])
    seen = []

    def answer(number):
        """Choose carefully, by the left image, the right one or an arrow key."""
        page.get_by_text(f'Question {number + 1} of {total}').wait_for()
        page.locator('#pair:not(.waiting)').wait_for()
        left, right = (code_of[page.locator(f'#{side} img').get_attribute('src')] for side in ('first', 'second'))
        seen.append((left, right))
        question = {**pair_of[frozenset((left, right))], 'left': left, 'right': right}
        chosen = careful(*(key['images'][code] for code in (left, right)), question)
        page.wait_for_timeout(130)
        if number % 2:
            page.keyboard.press('ArrowRight' if chosen else 'ArrowLeft')
        else:
            page.get_by_role('button', name='Right image is better' if chosen else 'Left image is better').click()

    answer(0)
    answer(1)
    page.evaluate(TOO_FAST)
    answer(2)
    page.get_by_text(f'Question 4 of {total}').wait_for()
    page.locator('#pair:not(.waiting)').wait_for()
    page.wait_for_timeout(50)
    assert page.evaluate('pressed') and page.get_by_text(f'Question 4 of {total}').is_visible()
    page.get_by_role('button', name='Back').click()
    page.get_by_text(f'Question 3 of {total}').wait_for()
    assert page.get_by_role('button', name='Back').is_disabled()  # one step only
    answer(2)
    page.reload()
    answer(3)
    assert seen[2] == seen[3] and page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    for number in range(4, total - 1):
        answer(number)
    with page.expect_download() as download:
        answer(total - 1)
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    page.get_by_text('Thank you').wait_for()
    with page.expect_download() as download:
        page.get_by_role('button', name='Save the file again').click()
    download.value.save_as(tmp_path / 'again.json')
    assert saved.read_text() == (tmp_path / 'again.json').read_text()
    assert problems == [] and all(url.startswith(('file:', 'data:', 'blob:')) for url in requests)

    answers = json.loads(saved.read_text())
    assert saved.name == f"answers_{key['study']}_{answers['rater']}.json" and answers['sheet'] == 2
    assert [answer['corrected'] for answer in answers['answers']].index(True) == 2
    assert all(answer['ms'] >= 100 and answer['scale'] == 1 and not answer['stacked'] for answer in answers['answers'])
    assert not re.search(r'medium|strongest|\breference|check|repeat', saved.read_text(), re.IGNORECASE)
    assert main(['study', 'preference', '--tally', str(saved), '--key', str(built.key), '-o', str(tmp_path / 'out')]) == 0
    result = json.loads((tmp_path / 'out' / 'preference.json').read_text())
    assert result['rejected'] == [] and result['ratings'] == 6 and result['repeats_alike'] == [1, 1]
    assert result['methods'] == ['Medium', 'Strongest', 'Reference']
    assert np.tril(result['wins'])[1, 0] == 0 and np.triu(result['wins'])[0, 2] == 0  # the sharper one always won
