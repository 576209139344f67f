"""Text from models, files and other people, made inert for Markdown, the terminal and others."""

import re
import unicodedata

MARKUP = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")  # q4_k_m needs no escape

FOLDERS = re.compile(r"(?<![\w./:<~])~?/(?=\S)(?:[^/\n:;,'\"()<>|]+/)*")


def without_folders(text: str) -> str:
    """Text for others: of each absolute path the last part alone, as of a file's name."""
    return FOLDERS.sub("", text)


def visible(text: str) -> str:
    """Control, direction and other invisible characters as \\u{…}; everything else as it is."""
    return "".join(
        rf"\u{{{ord(c):x}}}" if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c
        for c in text
    )


def inert(text: str) -> str:
    """Text that shows as itself in Markdown, table cells included, and moves no terminal."""
    return visible(MARKUP.sub(r"\\\g<0>", text))


def code(text: str) -> str:
    """The text as code, or inert where it would end the code or a table's cell."""
    return f"`{visible(text)}`" if text and not set(text) & set("`|") else inert(text)
