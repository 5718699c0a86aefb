"""The one exception that reaches a user as a sentence instead of a traceback."""


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


class MetricUnavailable(InputError):
    """A metric's package or weights cannot be had here: the metric is left out, whatever else was asked for goes on."""
