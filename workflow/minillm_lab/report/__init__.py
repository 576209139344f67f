"""The comparison of all variants: tables, figures, the README's section, the report's pages."""

FIGURES = {  # name: title
    "tradeoff": "What is lost for speed",
    "load": "Load time, cold and warm",
    "memory": "Memory by part",
    "lengths": "Speed against prompt length",
    "factors": "Where the speed-up comes from",
    "divergence": "Divergence from the reference",
    "accuracy": "Questions right, by group",
}
PAGES = {
    "summary": "1. Summary",
    "figures": "2. Figures",
    "answers": "3. Answers",
    "details": "4. Files and machine",
}  # name: category
