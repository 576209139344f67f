"""Text from elsewhere shows as itself: no markup, no cell, no terminal command comes of it."""

import pytest

from minillm_lab.wording import as_code, inert


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("a | b `c` *d* [e](f)", r"a \| b \`c\` \*d\* \[e\](f)"),
        ("__init__ q4_k_m", r"\_\_init\_\_ q4_k_m"),
        ("\x1b[31mred\x07", r"\u{1b}\[31mred\u{7}"),
        ("\u202egnp.exe\u200f", r"\u{202e}gnp.exe\u{200f}"),
        ("two\nlines\r", r"two\u{a}lines\u{d}"),
        ("AMD EPYC (24 GiB), ไทย, ñ", "AMD EPYC (24 GiB), ไทย, ñ"),
    ],
)
def test_text_is_made_inert(text: str, shown: str) -> None:
    assert inert(text) == shown


@pytest.mark.parametrize(
    "text, shown",
    [
        ("q4_k_m", "`q4_k_m`"),
        ("<b>", "`<b>`"),
        ("\x1b[2J", r"`\u{1b}[2J`"),
        ("`; rm", r"\`; rm"),
        ("a|b", r"a\|b"),
        ("", ""),
    ],
)
def test_code_cannot_be_left(text: str, shown: str) -> None:
    assert as_code(text) == shown
