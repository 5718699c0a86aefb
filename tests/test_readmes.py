"""What the READMEs print can be typed: commands and flags exist, so do the files they name, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from stochastic_refine.cli.main import _parser

READMES = [REPOSITORY / name for name in ('README.md', *(f'{room}/README.md' for room in (
    'options', 'scripts', 'stochastic_refine', 'tests')))]
COMMAND = re.compile(r'^(?:stochastic-refine|python|bash) ')


def commands(text: str) -> Iterator[str]:
    """Each command of code blocks, continued lines joined, and of code within sentences."""
    for block in re.findall(r'```(?:bash)?\n(.*?)```', text, re.S):
        for line in block.replace('\\\n', ' ').splitlines():
            if COMMAND.match(line):
                yield line
    for code in re.findall(r'(?<!`)`([^`\n]+)`(?!`)', re.sub(r'```.*?```', '', text, flags=re.S)):
        if COMMAND.match(code) and len(code.split()) > 2:
            yield code


@pytest.mark.parametrize('readme', READMES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_commands_can_be_typed(readme: Path) -> None:
    for command in commands(readme.read_text()):
        program, *words = shlex.split(command, comments=True)
        words = ['1' if word == 'N' else word for word in words if not word.startswith('$')]
        if program == 'stochastic-refine' and words[0] not in ('train', 'test'):
            try:
                _parser().parse_args(words)
            except SystemExit:
                pytest.fail(f'{command}: its arguments are not those of the command')
        elif program != 'stochastic-refine' and not words[0].startswith('-'):
            script = REPOSITORY / words[0]
            assert script.is_file(), command
            flags = {word.partition('=')[0] for word in words[1:] if word.startswith('--') and script.parent.name == 'scripts'}
            assert all(flag in script.read_text() for flag in flags), command
        for option, file in zip(words, words[1:]):
            assert option != '-opt' or file.isupper() or (REPOSITORY / file).is_file(), command


@pytest.mark.parametrize('readme', READMES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)|(?:src|href)="([^"#]+)"', readme.read_text()):
        place = ''.join(target)
        assert place.startswith('http') or (readme.parent / place).exists(), place


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / 'README.md').read_text().splitlines()) <= 150
