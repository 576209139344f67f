"""Text from elsewhere shows as itself: no markup, no cell, no terminal command comes of it."""

import pytest

from minillm_lab.wording import as_code, inert, number


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


@pytest.mark.parametrize(
    "value, shown",
    [(1234.5, "1234"), (131.46, "131"), (39.04, "39.0"), (0.1281, "0.13"), (0.00213, "0.0021"),
     (0.00999, "0.0100"), (0, "0.00"), (99.96, "100"), (9.996, "10.0"), (999.6, "1000"),
     (0.5346, "0.53"), (0.99547, "1.00")],
)  # fmt: skip
def test_a_number_has_its_significant_digits_and_only_nothing_reads_0(
    value: float, shown: str
) -> None:
    assert number(value) == shown
