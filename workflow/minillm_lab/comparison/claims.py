"""All claims that the pages make about all machines, judged together (Holm 1979)."""

from minillm_lab.comparison.factors import steps
from minillm_lab.comparison.group import (
    LOADS,
    MEMORY,
    Group,
    by_machine,
    cold_over_warm,
    ties,
)
from minillm_lab.comparison.shapes import Factor, Ratio
from minillm_lab.comparison.trials import METRICS as TRIED
from minillm_lab.estimates import Estimate, holm, quotient
from minillm_lab.result import Result

METRICS_COMPARED = (*LOADS, *MEMORY, *TRIED)
DECODE = "decode_tokens_per_second"
Key = tuple[str, ...]  # a claim's kind, then its place on the page, variant and metric


class Claims:
    """All claims about all machines, judged together."""

    def __init__(self, results: dict[str, Result], baseline: str) -> None:
        self.groups = {f: Group(rs, baseline) for f, rs in by_machine(results).items()}
        self.estimates: dict[Key, Estimate] = {}
        self.ways: dict[str, list[tuple[str, str, str]]] = {}
        self.firsts = {
            (fingerprint, metric): group.best(metric)
            for fingerprint, group in self.groups.items()
            for metric in METRICS_COMPARED
        }
        for fingerprint, group in self.groups.items():
            self._estimate(fingerprint, group)
        self.claims: dict[Key, float | None] = {
            ("best", metric, n): p
            for (_, metric), (_, others) in self.firsts.items()
            if metric not in MEMORY
            for n, p in others.items()
        }
        self.claims |= {key: estimate.p() for key, estimate in self.estimates.items()}
        self.held = holm(self.claims)

    def _estimate(self, fingerprint: str, group: Group) -> None:
        """Estimate every ratio that one machine's part of the page shows."""
        found: dict[Key, Estimate] = {
            ("cold", name): e for name, e in cold_over_warm(group.results).items()
        }
        for number, state in enumerate(group.states[1:], 1):
            found |= {
                ("state", fingerprint, str(number), name, metric): state.ratios[metric][name]
                for name in state.trials
                for metric in TRIED
            }
        if group.baseline in group.results:
            for metric in (*LOADS, *TRIED):
                ratios = group.ratios(metric)
                others = [name for name in ratios if name != group.baseline]
                found |= {("ratio", name, metric): ratios[name] for name in others}
            decode = group.ratios(DECODE)
            for name in group.results:
                known = steps(name, group.baseline, group.results)
                self.ways[name] = [way for way in known if {*way[1:]} <= decode.keys()]
                for _, start, end in self.ways[name]:
                    found["factor", start, end] = quotient(decode[end], decode[start])
        self.estimates |= found

    def ratio(self, *key: str) -> Ratio:
        """An estimate as the page shows it."""
        found = self.estimates[key]
        tie = found.ci95 is not None and key not in self.held
        return Ratio(value=found.value, ci95=found.ci95, tie=tie)

    def ratios(self, *place: str) -> dict[str, dict[str, Ratio]]:
        """The ratios of one place of the page, by variant and metric."""
        found: dict[str, dict[str, Ratio]] = {}
        for key in self.estimates:
            if key[:-2] == place:
                found.setdefault(key[-2], {})[key[-1]] = self.ratio(*key)
        return found

    def best(self, metric: str) -> list[str]:
        """The best variant of each machine, and those tied with it."""
        found = []
        for fingerprint in self.groups:
            first, others = self.firsts[fingerprint, metric]
            if metric in MEMORY:
                claimed = {n for n, p in others.items() if not p}
            else:
                claimed = {n for n in others if ("best", metric, n) in self.held}
            found += ties(first, others, claimed)
        return found

    def factors(self) -> dict[str, list[Factor]]:
        """The steps from the baseline to each other variant."""
        return {
            name: [
                Factor(change=change, start=start, end=end, decode=self.ratio("factor", start, end))
                for change, start, end in way
            ]
            for name, way in self.ways.items()
        }
