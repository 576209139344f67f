"""The error that a person can put right, and what other libraries' errors say."""


class LabError(Exception):
    """Something a person can put right. The message is one line: what is wrong and the way out."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
