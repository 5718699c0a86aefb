"""The one exception that reaches a user as a sentence instead of a traceback, and what lets every sentence reach the user."""

from __future__ import annotations

import codecs
import errno
import sys

#: What stands in for characters that an output's encoding lacks, as Windows' does; the others become a question mark.
_PLAIN = {'↑': '^', '↓': 'v', '±': '+-', '×': 'x', '–': '-', '—': '-', '…': '...', '≤': '<=', '≥': '>='}
#: What a system refuses: a full or read-only disk, permissions, a file where a folder should be, a name too long.
_REFUSED = {getattr(errno, name) for name in ('ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EISDIR', 'EEXIST',
                                              'ENAMETOOLONG', 'ELOOP') if hasattr(errno, name)}


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence that names the file, key or value and says what to do. The command line prints it without a
    traceback and ends with exit code 2; in Python it is an ordinary ``ValueError``.
    """

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's exception again with the worker's traceback as its message.
        if message.startswith('Caught InputError in DataLoader worker'):
            message = message.strip().rsplit('InputError: ', 1)[-1]
        super().__init__(message)


def words_of(error: BaseException, most: int = 200) -> str:
    """The first line of another library's error, for a sentence of ours; the error's class if it has no words."""
    line = next(iter(str(error).strip().splitlines()), '')
    return line[:most].rstrip('. ') or type(error).__name__


def refusal_of(error: OSError) -> InputError | None:
    """A sentence for a file or folder that the system does not let us write; None for other faults, which are ours."""
    if error.errno not in _REFUSED:
        return None
    return InputError(f"{error.filename or 'A file'} could not be written ({error.strerror}); free some space or choose "
                      'another folder.')


def print_in_any_encoding() -> None:
    """Let standard output and error take every text: what their encoding lacks is replaced by something plain."""
    codecs.register_error('stochastic_refine', _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='stochastic_refine')


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ''.join(_PLAIN.get(character, '?') for character in error.object[error.start:error.end]), error.end


class MetricUnavailable(InputError):
    """A metric's package or weights cannot be had here: the metric is left out, whatever else was asked for goes on."""


def is_of_the_system(error: InputError) -> bool:
    """Whether the system refused a file (no space, no folder, no permission), which the next one would meet too."""
    return isinstance(error.__cause__, OSError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU, by what PyTorch and Python raise then."""
    return 'memory' in f'{type(error).__name__} {error}'.lower()
