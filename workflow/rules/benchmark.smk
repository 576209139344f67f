"""Benchmark: rounds and trials, collected with its quality into one result per variant.

in   the variant's weights, results/prompts/<model>.json, results/models/<model>.<form>.json
out  results/rounds/<variant>.<n>.json    one round: a fresh process
     results/trials/<variant>.<n>.json    one trial: the variant and the baseline, taking turns
     results/peer/<variant>.json          its speed against llama-bench's, where that is configured
     results/<variant>.json               the variant's result

A round and a trial take every core that Snakemake has, so nothing runs beside them; how many
threads the inference uses is the experiment's business. Rounds and trials of all variants
interleave by priority, after everything that makes models: those numbered 1 in a shuffled order,
then those numbered 2.
"""


rule round:
    input:
        weights=weights,
        prompt=lambda wildcards: f"{RESULTS}/prompts/{model(wildcards)}.json",
        code=lambda wildcards: code("benchmark.round", runtime_module(wildcards)),
    output:
        f"{RESULTS}/rounds/{{variant}}.{{round}}.json",
    log:
        f"{RESULTS}/logs/rounds/{{variant}}.{{round}}.log",
    priority: lambda wildcards: due(wildcards.round, "round", wildcards.variant)
    conda:
        lambda wildcards: f"../../envs/{runtime(wildcards)}.yaml"
    threads: 1024  # Snakemake scales it down to every core it has
    resources:
        **on_node(tokens_of_round),
    params:
        settings=lambda wildcards: EXPERIMENT.settings(wildcards.variant),
        versions=lambda wildcards: runtime_build(runtime(wildcards)),
    shell:
        "python -m minillm_lab.benchmark.round"
        " --variant {wildcards.variant}"
        " --round {wildcards.round}"
        " --weights {input.weights:q}"
        " --prompt {input.prompt:q}"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " --log {log:q}"


rule trial:
    input:
        weights=lambda wildcards: [weights(of) for of in (wildcards, BASELINE)],
        prompts=lambda wildcards: [
            f"{RESULTS}/prompts/{model(of)}.json" for of in (wildcards, BASELINE)
        ],
        code=lambda wildcards: code(
            "benchmark.trial",
            "benchmark.slices",
            *{runtime_module(of) for of in (wildcards, BASELINE)},
        ),
    output:
        f"{RESULTS}/trials/{{variant}}.{{trial}}.json",
    log:
        f"{RESULTS}/logs/trials/{{variant}}.{{trial}}.log",
    priority: lambda wildcards: due(wildcards.trial, "trial", wildcards.variant)
    conda:
        lambda wildcards: f"../../envs/{trial_environment(wildcards)}.yaml"
    threads: 1024
    resources:
        **on_node(tokens_of_trial, models=2),
    params:
        baseline=EXPERIMENT.baseline,
        settings=lambda wildcards: [trial_settings(of.variant) for of in (wildcards, BASELINE)],
        versions=lambda wildcards: [runtime_build(runtime(of)) for of in (wildcards, BASELINE)],
    shell:
        "python -m minillm_lab.benchmark.trial"
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
        trials=lambda wildcards: [
            f"{RESULTS}/trials/{wildcards.variant}.{n}.json"
            for n in EXPERIMENT.trials_of(variant(wildcards))
        ],
        facts=lambda wildcards: (
            f"{RESULTS}/models/{model(wildcards)}.{EXPERIMENT.form(wildcards.variant)}.json"
        ),
        score=lambda wildcards: scores(wildcards, "score"),
        answer=lambda wildcards: scores(wildcards, "answer"),
        code=code("benchmark.collect"),
    output:
        f"{RESULTS}/{{variant}}.json",
    log:
        f"{RESULTS}/logs/collect/{{variant}}.log",
    conda:
        "../../envs/transformers.yaml"
    params:
        model=model,
        source=source,
        form=lambda wildcards: EXPERIMENT.form(wildcards.variant),
        score=lambda wildcards, input: f"--score {shlex.quote(input.score)}" if input.score else "",
        answer=lambda wildcards, input: (
            f"--answer {shlex.quote(input.answer)}" if input.answer else ""
        ),
    shell:
        "python -m minillm_lab.benchmark.collect"
        " --rounds {input.rounds:q}"
        " --trials {input.trials:q}"
        " --facts {input.facts:q}"
        " {params.score}"
        " {params.answer}"
        " --model {params.model}"
        " --source {params.source:q}"
        " --form {params.form}"
        " --output {output:q}"
        " --log {log:q}"


rule peer:
    input:
        weights=weights,
        code=code("benchmark.peer", "runtimes.llama_cpp"),
    output:
        f"{RESULTS}/peer/{{variant}}.json",
    log:
        f"{RESULTS}/logs/peer/{{variant}}.log",
    conda:
        "../../envs/llama.cpp.yaml"
    threads: 1024
    resources:
        **on_node(tokens_of_peer),
    params:
        program=peer_program,
        settings=lambda wildcards: EXPERIMENT.runtime_settings(wildcards.variant),
        pairs=PAIRS,
        versions=runtime_build("llama.cpp"),
    shell:
        "python -m minillm_lab.benchmark.peer"
        " --llama-bench {params.program:q}"
        " --weights {input.weights:q}"
        " --settings {params.settings:q}"
        " --pairs {params.pairs}"
        " --output {output:q}"
        " --log {log:q}"
