"""Report: all variants in one comparison, and the page's section.

in   results/<variant>.json of every variant
out  results/comparison.md / .csv / .json
     results/readme.md        the section as it stands between the page's markers

The page itself (README.md) is no output: Snakemake deletes the outputs of failed jobs.
"""


rule compare:
    input:
        results=expand(f"{RESULTS}/{{variant}}.json", variant=EXPERIMENT.variants),
        peers=expand(f"{RESULTS}/peer/{{variant}}.json", variant=EXPERIMENT.held_against_peer),
        code=code(
            "report/compare",
            "report/inert",
            "report/table",
            "report/quality",
            "statistics",
            "quality/verdict",
        ),
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


rule readme:
    input:
        comparison=f"{RESULTS}/comparison.json",
        code=code(
            "report/readme",
            "report/inert",
            "report/pick",
            "report/table",
            "report/learnings",
            "report/quality",
            "quality/verdict",
        ),
    output:
        f"{RESULTS}/readme.md",
    log:
        f"{RESULTS}/logs/readme.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        page=lambda wildcards: EXPERIMENT.readme,
    shell:
        "python -m minillm_lab.report.readme"
        " --comparison {input.comparison:q}"
        " --page {params.page:q}"
        " --output {output:q}"
        " --log {log:q}"
