"""One process that gives malformed inputs, one after the other, to the command that a user would give them to.

Started by test_malformed.py as ``python malformed_child.py FAMILY FOLDER``. For each input it writes two lines of JSON to
FOLDER/results.jsonl: its name before it is tried, so that a process that dies tells over what, and what came of it afterwards.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Of one input: seconds of computing until the process is ended, and bytes of memory beyond what it has after its imports.
MOST_SECONDS = 20
MOST_MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Case:
    """A malformed input.

    Attributes:
        name: What was done to which good input.
        run: What the user does with it; returns the exit code.
        names: Text that the sentence must hold: the file, key or value.
        may_pass: Whether it can be harmless in truth, such as a flipped bit of a pixel.
    """

    name: str
    run: Callable[[], int]
    names: str = ''
    may_pass: bool = False


def verdict(case: Case, code: int | None, printed: str) -> tuple[str, str]:
    """(``sentence``, ``valid`` or what is wrong, the sentence)."""
    sentences = re.findall(r'^Error: (.*)$', printed, re.MULTILINE)
    if code is None or 'Traceback' in printed:
        return 'traceback', printed[-1500:]
    if 'Warning' in printed:
        return 'noise beside the sentence', printed[-1500:]
    if code == 0:
        return ('valid' if case.may_pass and not sentences else 'was taken for good'), printed[-300:]
    if code != 2 or len(sentences) != 1:
        return f'exit code {code} and {len(sentences)} sentences', printed[-1500:]
    sentence = sentences[0]
    if not re.search(r'[.?]$', sentence) or len(sentence) > 1000 or case.names not in sentence:
        return f'a poor sentence (wants {case.names!r}, one end, 1000 characters at most)', sentence[:1500]
    return 'sentence', sentence


def attempt(case: Case, err: Path) -> tuple[int | None, str]:
    """The exit code, None after an exception, and all that came to standard error, from libraries in C too."""
    saved = os.dup(2)
    with err.open('wb') as file:
        os.dup2(file.fileno(), 2)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    faulthandler.dump_traceback_later(10 * MOST_SECONDS, exit=True, file=saved)  # asleep, or beside many other processes
    try:
        code = case.run()
    except SystemExit as exit:
        code = exit.code
    except BaseException:
        code = None
        traceback.print_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
    return code, err.read_text(encoding='utf-8', errors='replace').replace('\r', '\n')


def peak_memory() -> int:
    """Most bytes that were resident so far; 0 where the system does not tell."""
    try:
        return 1024 * int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text()).group(1))
    except OSError:
        return 0


def main(family: str, folder: Path) -> None:
    faulthandler.register(signal.SIGPROF, file=os.fdopen(os.dup(2), 'w'), chain=True)  # then the process is ended
    module = importlib.import_module(f'malformed_{family}')
    cases: Iterator[Case] = module.cases(random.Random(f'{family} 5'), folder)
    baseline = None
    with (folder / 'results.jsonl').open('a', encoding='utf-8') as results:

        def tell(**what: object) -> None:
            results.write(json.dumps(what) + '\n')
            results.flush()

        for case in cases:
            if baseline is None:
                baseline = peak_memory()  # the first input comes when all is imported
            tell(name=case.name)
            start, before = time.perf_counter(), peak_memory()
            kind, text = verdict(case, *attempt(case, folder / 'err.txt'))
            grown = peak_memory() - max(before, baseline)
            if peak_memory() - baseline > MOST_MEMORY and grown > 0:
                kind = f'{(peak_memory() - baseline) / 2**30:.1f} GiB of memory; {kind}'
            tell(name=case.name, kind=kind, text=text, seconds=round(time.perf_counter() - start, 2), grown=grown >> 20)


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1], Path(sys.argv[2]))
