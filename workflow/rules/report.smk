"""Report: all variants in one comparison, its charts, the page's section, the report's pages.

in   results/<variant>.json of every variant
out  results/provisional.md   what the first round and trial of every variant say, at once
     results/comparison.md / .csv / .json
     results/<chart>.svg      one file per chart, and the page's picture once more for the dark
     results/report/*.html    the pages of `snakemake --report`, and what it shows first
     results/readme.md        the page's section as it stands between the markers
     results/details.md       that of the page of details

The pages themselves (README.md, RESULTS.md) and the pictures are no output: Snakemake deletes the outputs of failed jobs.
"""


rule provisional:
    input:
        rounds=expand(f"{RESULTS}/rounds/{{variant}}.1.json", variant=EXPERIMENT.variants),
        trials=[trial for name in EXPERIMENT.variants for trial in PLAN.trials(name)[:1]],
        code=code("report.provisional"),
    output:
        f"{RESULTS}/provisional.md",
    log:
        f"{RESULTS}/logs/provisional.log",
    priority: due(2) + 1  # before what is numbered 2
    conda:
        "../../envs/transformers.yaml"
    params:
        baseline=EXPERIMENT.baseline,
    shell:
        "python -m minillm_lab.report.provisional"
        " --rounds {input.rounds:q}"
        " --trials {input.trials:q}"
        " --baseline {params.baseline}"
        " --output {output:q}"
        " --log {log:q}"


rule compare:
    input:
        results=expand(f"{RESULTS}/{{variant}}.json", variant=EXPERIMENT.variants),
        code=code("comparison.compare"),
    output:
        f"{RESULTS}/comparison.json",
    log:
        f"{RESULTS}/logs/compare.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        baseline=EXPERIMENT.baseline,
        command=lambda w: experiment_command(),
        precision=EXPERIMENT.precision or "",
    shell:
        "python -m minillm_lab.comparison.compare"
        " --results {input.results:q}"
        " --baseline {params.baseline}"
        " --experiment-command {params.command:q}"
        " --precision {params.precision}"
        " --output {output:q}"
        " --log {log:q}"


rule tables:
    input:
        comparison=f"{RESULTS}/comparison.json",
        code=code("report.tables"),
    output:
        markdown=f"{RESULTS}/comparison.md",
        csv=f"{RESULTS}/comparison.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    conda:
        "../../envs/transformers.yaml"
    shell:
        "python -m minillm_lab.report.tables"
        " --comparison {input.comparison:q}"
        " --markdown {output.markdown:q}"
        " --csv {output.csv:q}"
        " --log {log:q}"


rule charts:
    input:
        comparison=f"{RESULTS}/comparison.json",
        code=code("report.charts.draw"),
    output:
        [
            report(
                f"{RESULTS}/{chart}.svg",
                caption=f"../report/{chart}.rst",
                category=PAGES["charts"],
                labels={"chart": CHARTS[chart]},
            )
            for chart in charts_of(EXPERIMENT)
        ],
        dark=f"{RESULTS}/tradeoff-dark.svg",
    log:
        f"{RESULTS}/logs/charts.log",
    conda:
        "../../envs/report.yaml"
    shell:
        "python -m minillm_lab.report.charts.draw"
        " --comparison {input.comparison:q}"
        " --svg {output:q}"
        " --log {log:q}"


rule pages:
    input:
        comparison=f"{RESULTS}/comparison.json",
        answers=PLAN.answers(),
        templates=expand(f"{LAB}/report/{{page}}.html", page=["base", "opening", *PAGES]),
        captions=expand(f"{LAB}/report/{{name}}.rst", name=[*CHARTS, *PAGES, "losses"]),
        code=code("report.pages"),
    output:
        [
            report(
                f"{RESULTS}/report/{page}.html",
                caption=f"../report/{page}.rst",
                category=category,
                labels={"chart": "all, interactive"} if page == "charts" else {"page": page},
            )
            for page, category in PAGES.items()
        ],
        opening=f"{RESULTS}/report/opening.html",  # what the report shows first: workflow.rst
    log:
        f"{RESULTS}/logs/pages.log",
    conda:
        "../../envs/report.yaml"
    params:
        charts=charts_of(EXPERIMENT),
        templates=lambda w, input: os.path.dirname(input.templates[0]),
    shell:
        "python -m minillm_lab.report.pages"
        " --comparison {input.comparison:q}"
        " --answers {input.answers:q}"
        " --charts {params.charts:q}"
        " --templates {params.templates:q}"
        " --pages {output:q}"
        " --log {log:q}"


rule readme:
    input:
        comparison=f"{RESULTS}/comparison.json",
        light=f"{RESULTS}/tradeoff.svg",
        dark=f"{RESULTS}/tradeoff-dark.svg",
        edits=page_edits(),
        code=code("report.readme"),
    output:
        multiext(f"{RESULTS}/", "readme.md", "details.md"),
    log:
        f"{RESULTS}/logs/readme.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        page=lambda w: EXPERIMENT.readme,
    shell:
        "python -m minillm_lab.report.readme"
        " --comparison {input.comparison:q}"
        " --light {input.light:q}"
        " --dark {input.dark:q}"
        " --page {params.page:q}"
        " --output {output:q}"
        " --log {log:q}"
