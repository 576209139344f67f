"""Benchmark: rounds and trials, collected with its quality into one result per variant.

in   the variant's weights, results/prompts/<model>.json, results/models/<model>.<form>.json
out  results/rounds/<variant>.<n>.json    one round: a fresh process
     results/trials/<variant>.<n>.json    one trial: the variant and the baseline, taking turns
     results/<variant>.json               the variant's result

A round and a trial take every core that Snakemake has, so nothing runs beside them; how many
threads the inference uses is the experiment's business. Rounds and trials of all variants
interleave by priority, after everything that makes models: those numbered 1 in a shuffled order,
then those numbered 2.
"""

ROUND_CODE = code_by_runtime(RUNTIMES, "benchmark.round")
TRIAL_CODE = code_by_runtime(
    RUNTIMES, "benchmark.trial", "benchmark.slices", beside=PLAN.runtime(EXPERIMENT.baseline)
)


rule round:
    input:
        weights=PLAN.by_variant(PLAN.weights),
        prompt=PLAN.by_variant(lambda variant: f"{RESULTS}/prompts/{PLAN.model(variant)}.json"),
        code=PLAN.by_variant(lambda variant: ROUND_CODE[PLAN.runtime(variant)]),
    output:
        f"{RESULTS}/rounds/{{variant}}.{{round}}.json",
    log:
        f"{RESULTS}/logs/rounds/{{variant}}.{{round}}.log",
    priority: lambda w: due(int(w.round), "round", w.variant)
    conda:
        PLAN.by_variant(lambda variant: conda_file(PLAN.runtime(variant)))
    threads: ALL_CORES
    resources:
        **PLAN.on_node(PLAN.tokens_of_round),
    params:
        settings=PLAN.by_variant(PLAN.settings),
        versions=PLAN.by_variant(lambda variant: runtime_build(PLAN.runtime(variant))),
    shell:
        "watched python -m minillm_lab.benchmark.round"
        " --variant {wildcards.variant}"
        " --round {wildcards.round}"
        " --weights {input.weights:q}"
        " --prompt {input.prompt:q}"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " --log {log:q}"


rule trial:
    input:
        weights=PLAN.by_variant(lambda variant: [PLAN.weights(side) for side in PLAN.pair(variant)]),
        prompts=PLAN.by_variant(
            lambda variant: [
                f"{RESULTS}/prompts/{model}.json"
                for model in dict.fromkeys(map(PLAN.model, PLAN.pair(variant)))
            ]
        ),
        code=PLAN.by_variant(lambda variant: TRIAL_CODE[PLAN.runtime(variant)]),
    output:
        f"{RESULTS}/trials/{{variant}}.{{trial}}.json",
    log:
        f"{RESULTS}/logs/trials/{{variant}}.{{trial}}.log",
    priority: lambda w: due(int(w.trial), "trial", w.variant)
    conda:
        PLAN.by_variant(lambda variant: PLAN.trial_conda_file(variant))
    threads: ALL_CORES
    resources:
        **PLAN.on_node(PLAN.tokens_of_trial, models=2),
    params:
        baseline=EXPERIMENT.baseline,
        settings=PLAN.by_variant(
            lambda variant: [PLAN.trial_settings(side) for side in PLAN.pair(variant)]
        ),
        versions=PLAN.by_variant(
            lambda variant: [runtime_build(PLAN.runtime(side)) for side in PLAN.pair(variant)]
        ),
    shell:
        "watched python -m minillm_lab.benchmark.trial"
        " --trial {wildcards.trial}"
        " --variant {wildcards.variant}"
        " --baseline {params.baseline}"
        " --weights {input.weights:q}"
        " --prompts {input.prompts:q}"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " --log {log:q}"


rule collect:
    input:
        rounds=expand(
            f"{RESULTS}/rounds/{{{{variant}}}}.{{round}}.json",
            round=range(1, EXPERIMENT.rounds + 1),
        ),
        trials=PLAN.by_variant(PLAN.trials),
        facts=PLAN.by_variant(
            lambda variant: f"{RESULTS}/models/{PLAN.model(variant)}.{PLAN.form(variant)}.json"
        ),
        score=PLAN.by_variant(PLAN.score),
        answer=PLAN.by_variant(lambda variant: PLAN.answer(PLAN.model(variant))),
        recipe=PLAN.by_variant(
            lambda variant: RECIPES.file(PLAN.model(variant), PLAN.form(variant))
        ),
        code=code("benchmark.collect"),
    output:
        f"{RESULTS}/{{variant}}.json",
    log:
        f"{RESULTS}/logs/collect/{{variant}}.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        model=PLAN.by_variant(PLAN.model),
        source=PLAN.by_variant(lambda variant: PLAN.models.provenance(PLAN.model(variant))),
        form=PLAN.by_variant(PLAN.form),
        tensors=PLAN.by_variant(lambda variant: PLAN.models.mixture(PLAN.form(variant))),
    shell:
        "python -m minillm_lab.benchmark.collect"
        " --rounds {input.rounds:q}"
        " --trials {input.trials:q}"
        " --facts {input.facts:q}"
        " --score {input.score:q}"
        " --answer {input.answer:q}"
        " --model {params.model}"
        " --source {params.source:q}"
        " --form {params.form}"
        " --tensors {params.tensors:q}"
        " --recipe {input.recipe:q}"
        " --output {output:q}"
        " --log {log:q}"
