"""The table of what one setting changed, and how it reads."""

from tabulate import tabulate

from minillm_lab.comparison.changes import Change, changes
from minillm_lab.report.quality import cell
from minillm_lab.result import Result
from minillm_lab.wording import inert, number

HEAD = ["Setting", "From", "To", "KL divergence, nats", "To over from (95 %)"]
CAPTION = (
    "Pairs of variants that differ in one setting. The ratio is that of their mean divergences from"
    " the reference, paired by chunk of the text; each interval is for its ratio alone."
)


def rows(results: dict[str, Result]) -> list[list[str]]:
    """A row for each pair, in plain text; none if no two variants differ in one setting."""

    def lost(name: str) -> str:
        found = (results[name].quality or {})["kld_mean"].value
        return "–" if found is None else number(found)

    def over(change: Change) -> str:
        digits = 2 if (change.ratio.value or 0) < 10 else 0
        return f"×{cell(change.ratio, 1.0, digits)}"

    return [
        [
            c.setting, f"{c.start} ({c.before})", f"{c.end} ({c.after})",
            f"{lost(c.start)} → {lost(c.end)}", over(c),
        ]
        for c in changes(results)
    ]  # fmt: skip


def section(results: dict[str, Result]) -> list[str]:
    """The table as a section of a Markdown page, if there is a pair."""
    body = [[inert(text) for text in row] for row in rows(results)]
    if not body:
        return []
    table = tabulate(body, headers=HEAD, tablefmt="github", disable_numparse=True)
    return ["### One setting at a time", CAPTION, table]
