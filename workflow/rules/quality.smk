"""Quality: how far each variant is from the reference, the unquantized weights in float32.

in   the variant's weights, the evaluation text, the questions, results/prompts/<model>.json
out  results/quality/texts/<model>.json       text and questions as token ids
     results/quality/reference.<model>.npz    what the reference says at every scored token
     results/quality/answers/<model>.json     what it answers to the prompt
     results/quality/<variant>.json           the variant's distance from it

Like a round, each of them takes every core that Snakemake has, and comes after all rounds.
"""


rule text:
    input:
        tokenizer=lambda wildcards: EXPERIMENT.tokenizer(model(wildcards)),
        text=lambda wildcards: quality_file("text"),  # as functions: a report shows these names
        sections=lambda wildcards: sections_file(),
        questions=lambda wildcards: quality_file("questions"),
        prompts=f"{LAB}/minillm_lab/quality/prompts.yaml",
        code=code("quality.text"),
    output:
        f"{RESULTS}/quality/texts/{{model}}.json",
    log:
        f"{RESULTS}/logs/quality/text.{{model}}.log",
    priority: 2000000
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        origin=lambda wildcards, input: origin(wildcards, input.tokenizer),
        protocol=EXPERIMENT.quality_protocol(),
        files=quality_stamps(),
        questions=lambda wildcards, input: (
            f"--questions {shlex.quote(input.questions)}" if input.questions else ""
        ),
        sections=lambda wildcards, input: (
            f"--sections {shlex.quote(input.sections)}" if input.sections else ""
        ),
    shell:
        "python -m minillm_lab.quality.text"
        " --tokenizer {input.tokenizer:q}"
        " --text {input.text:q}"
        " {params.sections}"
        " {params.questions}"
        " --protocol {params.protocol:q}"
        " --output {output:q}"
        " --log {log:q}"


rule score:
    input:
        weights=weights,
        text=lambda wildcards: f"{RESULTS}/quality/texts/{model(wildcards)}.json",
        reference=reference_file,
        code=lambda wildcards: code("quality.score", runtime_module(wildcards)),
    output:
        f"{RESULTS}/quality/{{variant}}.json",
    log:
        f"{RESULTS}/logs/quality/{{variant}}.log",
    priority: 1000
    conda:
        lambda wildcards: f"../../envs/{runtime(wildcards)}.yaml"
    threads: 1024  # nothing runs beside it, and it beside no round
    resources:
        **on_node(tokens_of_text),
    params:
        settings=lambda wildcards: EXPERIMENT.runtime_settings(wildcards.variant),
        shared=lambda wildcards, input: [] if EXPERIMENT.reference else stamp(input.reference),
        versions=lambda wildcards: runtime_build(runtime(wildcards)),
    shell:
        "python -m minillm_lab.quality.score"
        " --variant {wildcards.variant}"
        " --weights {input.weights:q}"
        " --text {input.text:q}"
        " --reference {input.reference:q}"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " --log {log:q}"


if EXPERIMENT.reference:

    rule reference:
        input:
            weights=reference_weights,
            text=f"{RESULTS}/quality/texts/{{model}}.json",
            code=code("quality.reference", REFERENCE_RUNTIME),
        output:
            f"{RESULTS}/quality/reference.{{model}}.npz",
        log:
            f"{RESULTS}/logs/quality/reference.{{model}}.log",
        priority: 2000
        conda:
            f"../../envs/{EXPERIMENT.reference.runtime}.yaml"
        threads: 1024
        resources:
            **reading_model(tokens_of_text),
        params:
            settings=EXPERIMENT.reference_settings(),
            versions=runtime_build(EXPERIMENT.reference.runtime),
            exact="--exact" if EXPERIMENT.quality.exact else "",
        shell:
            "python -m minillm_lab.quality.reference"
            " --model {wildcards.model}"
            " --weights {input.weights:q}"
            " --text {input.text:q}"
            " --settings {params.settings:q}"
            " {params.exact}"
            " --output {output:q}"
            " --log {log:q}"

    rule answer:
        input:
            weights=reference_weights,
            prompt=f"{RESULTS}/prompts/{{model}}.json",
            code=code("quality.answer", REFERENCE_RUNTIME),
        output:
            f"{RESULTS}/quality/answers/{{model}}.json",
        log:
            f"{RESULTS}/logs/quality/answer.{{model}}.log",
        priority: 2000
        conda:
            f"../../envs/{EXPERIMENT.reference.runtime}.yaml"
        threads: 1024
        resources:
            **reading_model(),
        params:
            settings=EXPERIMENT.reference_settings(),
            generate=EXPERIMENT.generate,
            versions=runtime_build(EXPERIMENT.reference.runtime),
        shell:
            "python -m minillm_lab.quality.answer"
            " --model {wildcards.model}"
            " --weights {input.weights:q}"
            " --prompt {input.prompt:q}"
            " --settings {params.settings:q}"
            " --generate {params.generate}"
            " --output {output:q}"
            " --log {log:q}"
