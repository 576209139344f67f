"""The error that a person can fix, and the first line of other libraries' errors."""


class LabError(Exception):
    """An error that a person can fix. Its message is one line: what is wrong, and the way out."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or the name of its class if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
