"""What a user is told: bad input as one sentence, and other errors in one line."""


class InputError(ValueError):
    """Bad input from a user: the scripts print its sentence and exit with code 2."""


def sentence(error: BaseException) -> str:
    """The kind and the first line of an error, for a message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
