"""Report: all variants in one comparison, its figures, the page's section, the report's pages.

in   results/<variant>.json of every variant
out  results/provisional.md   what the first round and trial of every variant say, at once
     results/comparison.md / .csv / .json
     results/<figure>.svg     one file per figure, and the page's picture once more for the dark
     results/report/*.html    the pages of `snakemake --report`
     results/readme.md        the page's section as it stands between the markers
     results/details.md       that of the page of details

The pages themselves (README.md, RESULTS.md) and the pictures are no output: Snakemake deletes the outputs of failed jobs.
"""


rule provisional:
    input:
        rounds=expand(f"{RESULTS}/rounds/{{variant}}.1.json", variant=EXPERIMENT.variants),
        trials=[
            f"{RESULTS}/trials/{variant}.{n}.json"
            for variant in EXPERIMENT.variants
            for n in EXPERIMENT.trials_of(variant)[:1]
        ],
        code=code("report.provisional"),
    output:
        f"{RESULTS}/provisional.md",
    log:
        f"{RESULTS}/logs/provisional.log",
    priority: due(2, "", "") + 1000  # before what is numbered 2
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
        peers=expand(f"{RESULTS}/peer/{{variant}}.json", variant=EXPERIMENT.held_against_peer),
        code=code("report.compare"),
    output:
        json=f"{RESULTS}/comparison.json",
        markdown=f"{RESULTS}/comparison.md",
        csv=f"{RESULTS}/comparison.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        baseline=EXPERIMENT.baseline,
        command=lambda wildcards: experiment_command(),
        peers=lambda wildcards, input: (
            shlex.join(["--peers", *input.peers]) if input.peers else ""
        ),
        precision=f"--precision {EXPERIMENT.precision}" if EXPERIMENT.precision else "",
    shell:
        "python -m minillm_lab.report.compare"
        " --results {input.results:q}"
        " --baseline {params.baseline}"
        " --experiment-command {params.command:q}"
        " {params.peers}"
        " {params.precision}"
        " --json {output.json:q}"
        " --markdown {output.markdown:q}"
        " --csv {output.csv:q}"
        " --log {log:q}"


rule plots:
    input:
        comparison=f"{RESULTS}/comparison.json",
        code=code("report.plots"),
    output:
        [
            report(
                f"{RESULTS}/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category=PAGES["figures"],
                labels={"figure": FIGURES[figure]},
            )
            for figure in EXPERIMENT.figures
        ],
        dark=f"{RESULTS}/tradeoff-dark.svg",
    log:
        f"{RESULTS}/logs/plots.log",
    conda:
        "../../envs/report.yaml"
    shell:
        "python -m minillm_lab.report.plots"
        " --comparison {input.comparison:q}"
        " --svg {output:q}"
        " --log {log:q}"


rule pages:
    input:
        comparison=f"{RESULTS}/comparison.json",
        answers=reference_answers(),
        templates=expand(f"{LAB}/report/{{page}}.html", page=["base", *PAGES]),
        captions=expand(f"{LAB}/report/{{name}}.rst", name=[*FIGURES, *CAPTIONS.values(), "losses"]),
        code=code("report.pages"),
    output:
        [
            report(
                f"{RESULTS}/report/{page}.html",
                caption=f"../report/{CAPTIONS[page]}.rst",
                category=category,
                labels={"figure": "all, interactive"} if page == "figures" else {"page": page},
            )
            for page, category in PAGES.items()
        ],
    log:
        f"{RESULTS}/logs/pages.log",
    conda:
        "../../envs/report.yaml"
    params:
        figures=EXPERIMENT.figures,
        templates=lambda wildcards, input: os.path.dirname(input.templates[0]),
        answers=lambda wildcards, input: (
            f"--answers {shlex.join(input.answers)}" if input.answers else ""
        ),
    shell:
        "python -m minillm_lab.report.pages"
        " --comparison {input.comparison:q}"
        " {params.answers}"
        " --figures {params.figures:q}"
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
        page=lambda wildcards: EXPERIMENT.readme,
    shell:
        "python -m minillm_lab.report.readme"
        " --comparison {input.comparison:q}"
        " --light {input.light:q}"
        " --dark {input.dark:q}"
        " --page {params.page:q}"
        " --output {output:q}"
        " --log {log:q}"
