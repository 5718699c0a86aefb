"""What a tally reads: the key of a human preference study and the raters' answers, checked in full."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, words_of
from .study import ANSWERS_FORMAT, KEY_FORMAT


@dataclass(frozen=True)
class Rater:
    """One answers file. ``choices``: (question, code on the left, code chosen), in the order of asking."""

    name: str
    path: Path
    choices: tuple[tuple[str, str, str], ...]
    seconds: tuple[float, ...]
    shrunk: int


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        InputError: If the file is none.
    """
    key = _read_json(path, 'key')
    wanted = {'study', 'settings', 'methods', 'images', 'questions', 'sheets'}
    if not (isinstance(key, dict) and key.get('format') == KEY_FORMAT and wanted <= key.keys()):
        raise InputError(f'{path} is no key of a preference study; give the .key.json that was written beside the page.')
    try:
        _check_key(key)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is damaged ({words_of(error)}); give the .key.json as it was written beside the '
                         'page.') from error
    return key


def _check_key(key: dict[str, Any]) -> None:
    """Raise one of several errors unless all that a tally looks up is there."""
    def must(sound: bool, what: str) -> None:
        if not sound:
            raise ValueError(f'wrong {what}')

    methods, questions = key['methods'], key['questions']
    must(isinstance(key['study'], str), 'study')
    must(isinstance(key['settings'], dict) and type(key['settings']['photos']) is int, 'settings')
    must(isinstance(methods, list) and len(set(methods)) == len(methods) > 1, 'methods')
    must(all(isinstance(method, str) for method in methods), 'methods')
    for code, question in questions.items():
        kind, shown = question['kind'], [question['left'], question['right']]
        must(kind in ('pair', 'repeat', 'check'), f'kind of question {code}')
        if kind == 'pair':
            first, second = (key['images'][image]['method'] for image in shown)
            must(first != second and {first, second} <= set(methods), f'images of question {code}')
        elif kind == 'repeat':
            must(questions[question['repeats']]['kind'] == 'pair', f'repeat {code}')
        else:
            must(question['answer'] in shown, f'answer of question {code}')
    must(isinstance(key['sheets'], list) and len(key['sheets']) > 0, 'sheets')
    for sheet in key['sheets']:
        must(isinstance(sheet, list) and all(isinstance(code, str) and code in questions for code in sheet), 'sheet')
        repeated = [questions[code]['repeats'] for code in sheet if questions[code]['kind'] == 'repeat']
        must(set(repeated) <= set(sheet), 'repeats of a sheet')


def read_answers(path: Path, key: dict[str, Any]) -> Rater:
    """One rater's answers, checked in full against the key.

    Raises:
        InputError: If the file is damaged or of another study.
    """
    content = _read_json(path, 'answers')
    if not isinstance(content, dict) or content.get('format') != ANSWERS_FORMAT:
        raise InputError(f'{path} is no file of answers; give what the page saved at its end (answers_STUDY_RATER.json).')
    if content.get('study') != key['study']:
        raise InputError(f"{path} answers the study '{content.get('study')}' but the key is that of '{key['study']}'; "
                         'leave it out, or give its own --key.')

    def damaged(reason: str) -> InputError:
        return InputError(f'{path} is damaged: {reason}; ask the rater to save the file again, or leave it out.')

    rater, sheet, answers = (content.get(name) for name in ('rater', 'sheet', 'answers'))
    if not isinstance(rater, str) or not re.fullmatch('[0-9a-f]{12}', rater):
        raise damaged('the number of the rater is missing')
    if type(sheet) is not int or not 1 <= sheet <= len(key['sheets']):
        raise damaged(f'there is no question sheet {sheet!r}')
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise damaged('it holds no list of answers')
    if sorted(str(answer.get('question')) for answer in answers) != sorted(key['sheets'][sheet - 1]):
        raise damaged(f'its {len(answers)} answers are not one to each of the {len(key["sheets"][sheet - 1])} questions of '
                      f'sheet {sheet}')
    choices = []
    for number, answer in enumerate(answers, 1):
        question = key['questions'][answer['question']]
        sides = [answer.get('left'), answer.get('right')]
        if sides not in ([question['left'], question['right']], [question['right'], question['left']]):
            raise damaged(f'answer {number} shows other images than its question has')
        if answer.get('chosen') not in sides:
            raise damaged(f'answer {number} chooses an image that was not shown')
        if not _positive(answer.get('ms')) or not _positive(answer.get('scale')):
            raise damaged(f'answer {number} lacks its time or the scale of the crops')
        choices.append((answer['question'], sides[0], answer['chosen']))
    return Rater(rater, path, tuple(choices), tuple(answer['ms'] / 1000 for answer in answers),
                 sum(answer['scale'] < 1 for answer in answers))


def _read_json(path: Path, kind: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}); check the path of the {kind}.') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is damaged: no JSON ({words_of(error)}); give the {kind} as it was saved.') from error


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
