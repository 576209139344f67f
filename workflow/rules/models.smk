"""Models: from their source to the file that a variant runs.

in   what the config names: a wheel, a hub repository, a local file or folder
out  models/<model>/source/…          as shipped: <file>.gguf, safetensors/, tokenizer/
     models/<model>/F16.gguf          unquantized (BF16 and F32 likewise), where the source does
                                      not ship it
     models/<model>/<type>.gguf       quantized here
     models/<model>/safetensors/      exported, where the source ships none
     results/models/<model>.<form>.json   what the file really holds
     results/prompts/<model>.json     the prompt's text and token ids

What is fetched depends on the config's entry alone (it names version, revision, checksum), so new
code downloads nothing again. Deleted models are made again only when a result needs them.
"""


rule fetch_gguf:
    input:
        local_files,
    output:
        "models/{model}/source/{file}.gguf",
    log:
        "logs/fetch/{model}.{file}.log",
    wildcard_constraints:
        file="[^/]+",
    priority: 2000000
    retries: 1
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        source=lambda wildcards: EXPERIMENT.fetched(model(wildcards), f"{wildcards.file}.gguf"),
        local=lambda wildcards: stamps(model(wildcards)),
    shell:
        "python -m minillm_lab.models.fetch"
        " --what gguf"
        " --source {params.source:q}"
        " --output {output:q}"
        " --log {log:q}"


rule fetch_folder:
    input:
        local_files,
    output:
        directory("models/{model}/source/{what}"),
    log:
        "logs/fetch/{model}.{what}.log",
    wildcard_constraints:
        what="safetensors|tokenizer",
    priority: 2000000
    retries: 1
    conda:
        "../../envs/transformers.yaml"
    params:
        source=lambda wildcards: EXPERIMENT.fetched(model(wildcards), wildcards.what),
        local=lambda wildcards: stamps(model(wildcards)),
    shell:
        "python -m minillm_lab.models.fetch"
        " --what {wildcards.what}"
        " --source {params.source:q}"
        " --output {output:q}"
        " --log {log:q}"


rule fetch_converter:
    output:
        directory("models/.converter/{version}"),
    log:
        "logs/fetch/converter.{version}.log",
    priority: 2000000
    retries: 1
    conda:
        "../../envs/llama.cpp.yaml"
    shell:
        "python -m minillm_lab.models.convert"
        " --unpack-converter"
        " --output {output:q}"
        " --log {log:q}"


rule convert:
    input:
        source=lambda wildcards: EXPERIMENT.made_from(model(wildcards), wildcards.type),
        converter=converter,
        code=code("models.convert"),
    output:
        "models/{model}/{type}.gguf",
    log:
        "logs/convert/{model}.{type}.log",
    wildcard_constraints:
        type="F16|BF16|F32",
    priority: 2000000
    conda:
        "../../envs/llama.cpp.yaml"
    resources:
        **reading_model(),
    params:
        converter=lambda wildcards, input: (
            f"--converter {shlex.quote(input.converter)}" if input.converter else ""
        ),
        dither=lambda wildcards: EXPERIMENT.dither(model(wildcards), wildcards.type),
    shell:
        "python -m minillm_lab.models.convert"
        " --source {input.source:q}"
        " {params.converter}"
        " --type {wildcards.type}"
        " --dither {params.dither}"
        " --output {output:q}"
        " --log {log:q}"


rule quantize:
    input:
        source=lambda wildcards: EXPERIMENT.made_from(model(wildcards), wildcards.type),
        code=code("models.quantize"),
    output:
        "models/{model}/{type}.gguf",
    log:
        "logs/quantize/{model}.{type}.log",
    wildcard_constraints:
        type="(?!F16|BF16|F32)[A-Z0-9_]+",
    priority: 2000000
    conda:
        "../../envs/llama.cpp.yaml"
    resources:
        **reading_model(),
    params:
        versions=runtime_build("llama.cpp"),
    shell:
        "python -m minillm_lab.models.quantize"
        " --source {input.source:q}"
        " --type {wildcards.type}"
        " --output {output:q}"
        " --log {log:q}"


rule export:
    input:
        gguf=lambda wildcards: EXPERIMENT.made_from(model(wildcards), "safetensors"),
        code=code("models.export"),
    output:
        directory("models/{model}/safetensors"),
    log:
        "logs/export/{model}.log",
    priority: 2000000
    conda:
        "../../envs/transformers.yaml"
    resources:
        **reading_model(),
    shell:
        "python -m minillm_lab.models.export"
        " --gguf {input.gguf:q}"
        " --output {output:q}"
        " --log {log:q}"


rule facts:
    input:
        weights=lambda wildcards: EXPERIMENT.weights(model(wildcards), wildcards.form),
        code=code("models.facts"),
    output:
        f"{RESULTS}/models/{{model}}.{{form}}.json",
    log:
        f"{RESULTS}/logs/facts/{{model}}.{{form}}.log",
    priority: 2000000
    conda:
        "../../envs/transformers.yaml"
    resources:
        **reading_model(),
    params:
        origin=lambda wildcards, input: origin(wildcards, input.weights),
    shell:
        "python -m minillm_lab.models.facts"
        " --weights {input.weights:q}"
        " --output {output:q}"
        " --log {log:q}"


rule prompt:
    input:
        tokenizer=lambda wildcards: EXPERIMENT.tokenizer(model(wildcards)),
        code=code("models.prompt"),
    output:
        f"{RESULTS}/prompts/{{model}}.json",
    log:
        f"{RESULTS}/logs/prompt/{{model}}.log",
    priority: 2000000
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        origin=lambda wildcards, input: origin(wildcards, input.tokenizer),
        question=lambda wildcards: EXPERIMENT.prompt,  # braces in it are no wildcards
    shell:
        "python -m minillm_lab.models.prompt"
        " --tokenizer {input.tokenizer:q}"
        " --question {params.question:q}"
        " --output {output:q}"
        " --log {log:q}"
