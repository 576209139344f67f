"""Quality: how far each variant is from the reference, the unquantized weights in float32.

in   the variant's weights, the evaluation text, the questions, results/prompts/<model>.json
out  results/quality/texts/<model>.json       text and questions as token ids
     results/quality/reference.<model>.npz    what the reference says at every scored token
     results/quality/answers/<model>.json     what it answers to the prompt
     results/quality/<variant>.json           the variant's distance from it

Like a round, each of them takes every core that Snakemake has, and comes after all rounds.
"""

SCORE_CODE = code_by_runtime(RUNTIMES, "quality.score")
REFERENCES = {name: runtime_module(name) for name in PLAN.reference_runtimes}
REFERENCE_CODE = code_by_runtime(REFERENCES, "quality.reference")
ANSWER_CODE = code_by_runtime(REFERENCES, "quality.answer")


rule text:
    input:
        tokenizer=lambda w: PLAN.models.tokenizer(PLAN.known_model(w.model)),
        text=lambda w: PLAN.texts.text(),  # as functions: a report shows these names
        sections=lambda w: PLAN.texts.sections(),
        questions=lambda w: PLAN.texts.questions(),
        long_text=lambda w: PLAN.texts.long_text(),
        prompts=f"{LAB}/minillm_lab/quality/prompts.yaml",
        code=code("quality.text"),
    output:
        f"{RESULTS}/quality/texts/{{model}}.json",
    log:
        f"{RESULTS}/logs/quality/text.{{model}}.log",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        origin=lambda w, input: PLAN.models.origin(w.model, input.tokenizer),
        protocol=PLAN.texts.protocol(),
        files=PLAN.texts.stamps(),
    shell:
        "watched python -m minillm_lab.quality.text"
        " --tokenizer {input.tokenizer:q}"
        " --text {input.text:q}"
        " --sections {input.sections:q}"
        " --questions {input.questions:q}"
        " --long-text {input.long_text:q}"
        " --protocol {params.protocol:q}"
        " --output {output:q}"
        " --log {log:q}"


rule score:
    input:
        weights=PLAN.by_variant(PLAN.weights),
        text=PLAN.by_variant(lambda variant: f"{RESULTS}/quality/texts/{PLAN.model(variant)}.json"),
        reference=lambda w: PLAN.reference_file(w.variant),
        code=PLAN.by_variant(lambda variant: SCORE_CODE[PLAN.runtime(variant)]),
    output:
        f"{RESULTS}/quality/{{variant}}.json",
    log:
        f"{RESULTS}/logs/quality/{{variant}}.log",
    priority: 1000
    conda:
        PLAN.by_variant(lambda variant: conda_file(PLAN.runtime(variant)))
    threads: ALL_CORES
    resources:
        **PLAN.on_node(PLAN.tokens_of_text),
    params:
        model=PLAN.by_variant(PLAN.model),
        settings=PLAN.by_variant(PLAN.runtime_settings),
        shared=lambda w: PLAN.shared_reference(w.variant),
        versions=PLAN.by_variant(lambda variant: runtime_build(PLAN.runtime(variant))),
    shell:
        "watched python -m minillm_lab.quality.score"
        " --variant {wildcards.variant}"
        " --model {params.model:q}"
        " --weights {input.weights:q}"
        " --text {input.text:q}"
        " --reference {input.reference:q}"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " --log {log:q}"


if PLAN.with_reference:

    rule reference:
        input:
            weights=lambda w: PLAN.reference_weights(w.model),
            text=f"{RESULTS}/quality/texts/{{model}}.json",
            code=lambda w: REFERENCE_CODE[PLAN.computed(w.model).engine],
        output:
            f"{RESULTS}/quality/reference.{{model}}.npz",
        log:
            f"{RESULTS}/logs/quality/reference.{{model}}.log",
        priority: 2000
        conda:
            lambda w: conda_file(PLAN.computed(w.model).engine)
        threads: ALL_CORES
        resources:
            **PLAN.reading_model(PLAN.tokens_of_text),
        params:
            settings=lambda w: PLAN.reference_settings(w.model),
            versions=lambda w: runtime_build(PLAN.computed(w.model).engine),
            exact="--exact" if EXPERIMENT.quality.exact else "",
        shell:
            "watched python -m minillm_lab.quality.reference"
            " --model {wildcards.model}"
            " --weights {input.weights:q}"
            " --text {input.text:q}"
            " --settings {params.settings:q}"
            " {params.exact}"
            " --output {output:q}"
            " --log {log:q}"

    rule answer:
        input:
            weights=lambda w: PLAN.reference_weights(w.model),
            prompt=f"{RESULTS}/prompts/{{model}}.json",
            code=lambda w: ANSWER_CODE[PLAN.computed(w.model).engine],
        output:
            f"{RESULTS}/quality/answers/{{model}}.json",
        log:
            f"{RESULTS}/logs/quality/answer.{{model}}.log",
        priority: 2000
        conda:
            lambda w: conda_file(PLAN.computed(w.model).engine)
        threads: ALL_CORES
        resources:
            **PLAN.reading_model(),
        params:
            settings=lambda w: PLAN.reference_settings(w.model),
            generate=EXPERIMENT.generate,
            versions=lambda w: runtime_build(PLAN.computed(w.model).engine),
        shell:
            "watched python -m minillm_lab.quality.answer"
            " --model {wildcards.model}"
            " --weights {input.weights:q}"
            " --prompt {input.prompt:q}"
            " --settings {params.settings:q}"
            " --generate {params.generate}"
            " --output {output:q}"
            " --log {log:q}"
