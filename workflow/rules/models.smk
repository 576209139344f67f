"""Models: from their source to the file that a variant runs.

in   what the config names: a wheel, a hub repository, a local file or folder
out  models/<model>/source/…          as shipped: <file>.gguf, safetensors/, tokenizer/, and
                                      <file>.split/ with the parts of a GGUF
     models/<model>/F16.gguf          unquantized (BF16 and F32 likewise), where the source does
                                      not ship it
     models/<model>/imatrix.gguf      the importance matrix of the lab's own calibration text
     models/<model>/<type>+imatrix.gguf, <type>.gguf   quantized here, with it or without; a
                                      mixture's name goes on with +tensors-<checksum>
     models/<model>/sensitivity….json what each group of tensors loses by type
     models/<model>/times….json       what types of tensors cost in time on this machine
     models/<model>/recipe….json      the types that lose least at a size, and recipe….gguf
     models/<model>/safetensors/      written here, where the source ships none
     models/<model>/<method>/         as another library than llama.cpp reads it
     models/.references/…             references of quality, as others published them
     results/models/<model>.<form>.json   what the file really holds
     results/prompts/<model>.json     the prompt's text and token ids

What is fetched depends on the config's entry alone (it names version, revision, checksum), so new
code downloads nothing again. Deleted models are made again only when a result needs them.
"""

PACKERS = {  # what makes their forms
    "bitsandbytes": "models.pack",
    "torchao": "models.pack",
    "mlx": "models.mlx_folder",
    "openvino": "models.pack_openvino",
    "onnx": "models.pack_onnx",
}
PACKER_CODE = {name: code(module) for name, module in PACKERS.items() if name in RUNTIMES}


rule fetch_gguf:
    input:
        lambda w: PLAN.models.local(PLAN.known_model(w.model), f"{w.file}.gguf"),
    output:
        "models/{model}/source/{file}.gguf",
    log:
        "logs/fetch/{model}.{file}.log",
    wildcard_constraints:
        file="[^/]+",
    priority: MODELS_FIRST
    retries: 1
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        source=lambda w: PLAN.models.fetched(w.model, f"{w.file}.gguf"),
        local=lambda w: PLAN.models.stamps(w.model, f"{w.file}.gguf"),
    shell:
        "watched python -m minillm_lab.models.fetch"
        " --kind gguf"
        " --source {params.source:q}"
        " --output {output:q}"
        " --log {log:q}"


rule fetch_folder:
    input:
        lambda w: PLAN.models.local(PLAN.known_model(w.model), w.part),
    output:
        directory("models/{model}/source/{part}"),
    log:
        "logs/fetch/{model}.{part}.log",
    wildcard_constraints:
        part=r"safetensors|tokenizer|[^/]+\.split",
    priority: MODELS_FIRST
    retries: 1
    conda:
        "../../envs/transformers.yaml"
    params:
        source=lambda w: PLAN.models.fetched(w.model, w.part),
        local=lambda w: PLAN.models.stamps(w.model, w.part),
        kind=lambda w: "gguf" if w.part.endswith(".split") else w.part,
    shell:
        "watched python -m minillm_lab.models.fetch"
        " --kind {params.kind}"
        " --source {params.source:q}"
        " --output {output:q}"
        " --log {log:q}"


rule fetch_reference:
    output:
        "models/.references/{place}",
    log:
        "logs/fetch/reference/{place}.log",
    wildcard_constraints:
        place=r".+\.npz",
    priority: MODELS_FIRST
    retries: 1
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        source=lambda w: published_at(w.place, EXPERIMENT.published_references()),
    shell:
        "watched python -m minillm_lab.models.fetch"
        " --kind reference"
        " --source {params.source:q}"
        " --output {output:q}"
        " --log {log:q}"


rule fetch_converter:
    output:
        directory("models/.converter/{version}"),
    log:
        "logs/fetch/converter.{version}.log",
    priority: MODELS_FIRST
    retries: 1
    conda:
        "../../envs/llama.cpp.yaml"
    shell:
        "watched python -m minillm_lab.models.convert"
        " --unpack-converter"
        " --output {output:q}"
        " --log {log:q}"


rule convert:
    input:
        source=lambda w: PLAN.models.made_from(PLAN.known_model(w.model), w.type),
        converter=lambda w: PLAN.models.converter(PLAN.known_model(w.model)),
        code=code("models.convert"),
    output:
        "models/{model}/{type}.gguf",
    log:
        "logs/convert/{model}.{type}.log",
    wildcard_constraints:
        type="F16|BF16|F32",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    resources:
        **PLAN.reading_model(),
    params:
        dither=lambda w: PLAN.models.dither(w.model, w.type),
    shell:
        "watched python -m minillm_lab.models.convert"
        " --source {input.source:q}"
        " --converter {input.converter:q}"
        " --type {wildcards.type}"
        " --dither {params.dither}"
        " --output {output:q}"
        " --log {log:q}"


rule imatrix:
    input:
        weights=lambda w: PLAN.models.unquantized(PLAN.known_model(w.model)),
        text=lambda w: PLAN.calibration(w.of),
        code=code("models.imatrix"),
    output:
        "models/{model}/imatrix{of}.gguf",
    log:
        "logs/imatrix/{model}{of}.log",
    wildcard_constraints:
        of="(-[0-9a-f]{8})?",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    threads: ALL_CORES
    resources:
        **PLAN.reading_model(PLAN.tokens_of_calibration),
    params:
        chunks=lambda w: "" if w.of else OWN_CHUNKS,
        replaced=lambda w: PLAN.stamp(PLAN.calibration(w.of)) if w.of else "",
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.models.imatrix"
        " --weights {input.weights:q}"
        " --text {input.text:q}"
        " --chunks {params.chunks}"
        " --output {output:q}"
        " --log {log:q}"


rule quantize:
    input:
        source=lambda w: PLAN.models.made_from(PLAN.known_model(w.model), w.type),
        imatrix=lambda w: PLAN.imatrix(w.model, w.type),
        code=code("models.quantize"),
    output:
        "models/{model}/{type}.gguf",
    log:
        "logs/quantize/{model}.{type}.log",
    wildcard_constraints:
        type=f"(?!F16|BF16|F32)[A-Z0-9_]+{RECIPE}",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    resources:
        **PLAN.reading_model(),
    params:
        type=lambda w: type_of(w.type),
        imatrix=lambda w: PLAN.models.imatrix_stamp(w.type),
        tensors=lambda w: PLAN.models.mixture(w.type),
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.models.quantize"
        " --source {input.source:q}"
        " --imatrix {input.imatrix:q}"
        " --type {params.type}"
        " --tensors {params.tensors:q}"
        " --output {output:q}"
        " --log {log:q}"


rule sensitivity:
    input:
        weights=lambda w: PLAN.models.unquantized(PLAN.known_model(w.model)),
        imatrix=lambda w: PLAN.imatrix(w.model, f"recipe{w.of}"),
        text=lambda w: RECIPES.text(w.of),
        code=code("recipes.sensitivity"),
    output:
        "models/{model}/sensitivity{of}{types}.json",
    log:
        "logs/recipes/{model}.sensitivity{of}{types}.log",
    wildcard_constraints:
        of=MATRIX,
        types=r"(\+types-[0-9a-f]{8})?",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    threads: ALL_CORES
    resources:
        **PLAN.reading_model(PLAN.tokens_of_calibration, minutes=RECIPES.minutes),
    params:
        imatrix=lambda w: PLAN.models.imatrix_stamp(f"recipe{w.of}"),
        types=lambda w: RECIPES.types_searched(w.types),
        minutes=RECIPES.minutes,
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.recipes.sensitivity"
        " --weights {input.weights:q}"
        " --imatrix {input.imatrix:q}"
        " --text {input.text:q}"
        " --types {params.types}"
        " --minutes {params.minutes}"
        " --output {output:q}"
        " --log {log:q}"


rule times:
    input:
        weights=lambda w: PLAN.models.unquantized(PLAN.known_model(w.model)),
        sensitivity="models/{model}/sensitivity{of}{types}.json",
        imatrix=lambda w: PLAN.imatrix(w.model, f"recipe{w.of}"),
        text=lambda w: RECIPES.text(w.of),
        code=code("recipes.times"),
    output:
        "models/{model}/times{of}{types}+threads-{threads_used}.json",
    log:
        "logs/recipes/{model}.times{of}{types}+threads-{threads_used}.log",
    wildcard_constraints:
        of=MATRIX,
        types=r"(\+types-[0-9a-f]{8})?",
        threads_used=r"auto|\d+",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    threads: ALL_CORES
    resources:
        **PLAN.reading_model(PLAN.tokens_of_calibration, minutes=10),
    params:
        imatrix=lambda w: PLAN.models.imatrix_stamp(f"recipe{w.of}"),
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.recipes.times"
        " --weights {input.weights:q}"
        " --imatrix {input.imatrix:q}"
        " --sensitivity {input.sensitivity:q}"
        " --text {input.text:q}"
        " --threads {wildcards.threads_used}"
        " --output {output:q}"
        " --log {log:q}"


rule recipe:
    input:
        weights=lambda w: PLAN.models.unquantized(PLAN.known_model(w.model)),
        imatrix=lambda w: PLAN.imatrix(w.model, f"recipe{w.of}{w.size}"),
        sensitivity=lambda w: RECIPES.sensitivity(w.model, f"recipe{w.of}{w.size}"),
        text=lambda w: RECIPES.text(w.of),
        as_large_as=lambda w: RECIPES.as_large_as(w.model, f"recipe{w.of}{w.size}"),
        times=lambda w: RECIPES.times(w.model, f"recipe{w.of}{w.size}"),
        as_fast_as=lambda w: RECIPES.as_fast_as(w.model, f"recipe{w.of}{w.size}"),
        code=code("recipes.assignment"),
    output:
        "models/{model}/recipe{of}{size}.json",
    log:
        "logs/recipes/{model}.recipe{of}{size}.log",
    wildcard_constraints:
        of=MATRIX,
        size=r"\+size-[0-9a-f]{8}",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    threads: ALL_CORES
    resources:
        **PLAN.reading_model(PLAN.tokens_of_calibration),
    params:
        imatrix=lambda w: PLAN.models.imatrix_stamp(f"recipe{w.of}"),
        size=lambda w: RECIPES.size(f"recipe{w.of}{w.size}"),
        time=lambda w: RECIPES.time(f"recipe{w.of}{w.size}"),
        types=lambda w: RECIPES.types(f"recipe{w.of}{w.size}"),
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.recipes.assignment"
        " --weights {input.weights:q}"
        " --imatrix {input.imatrix:q}"
        " --sensitivity {input.sensitivity:q}"
        " --text {input.text:q}"
        " {params.size}"
        " --size-of {input.as_large_as:q}"
        " --times {input.times:q}"
        " --as-fast-as {input.as_fast_as:q}"
        " {params.time}"
        " --types {params.types}"
        " --output {output:q}"
        " --log {log:q}"


rule bake:
    input:
        source=lambda w: PLAN.models.unquantized(PLAN.known_model(w.model)),
        imatrix=lambda w: PLAN.imatrix(w.model, w.form),
        recipe="models/{model}/{form}.json",
        code=code("recipes.bake"),
    output:
        "models/{model}/{form}.gguf",
    log:
        "logs/recipes/{model}.{form}.log",
    wildcard_constraints:
        form=f"recipe{RECIPE}",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    resources:
        **PLAN.reading_model(),
    params:
        imatrix=lambda w: PLAN.models.imatrix_stamp(w.form),
        versions=runtime_build("llama.cpp"),
    shell:
        "watched python -m minillm_lab.recipes.bake"
        " --source {input.source:q}"
        " --imatrix {input.imatrix:q}"
        " --recipe {input.recipe:q}"
        " --output {output:q}"
        " --log {log:q}"


rule safetensors:
    input:
        gguf=lambda w: PLAN.models.made_from(PLAN.known_model(w.model), "safetensors"),
        code=code("models.safetensors"),
    output:
        directory("models/{model}/safetensors"),
    log:
        "logs/safetensors/{model}.log",
    priority: MODELS_FIRST
    conda:
        "../../envs/transformers.yaml"
    resources:
        **PLAN.reading_model(),
    shell:
        "watched python -m minillm_lab.models.safetensors"
        " --gguf {input.gguf:q}"
        " --output {output:q}"
        " --log {log:q}"


rule pack:
    input:
        safetensors=lambda w: PLAN.models.made_from(PLAN.known_model(w.model), w.form),
        code=lambda w: PACKER_CODE.get(library_of(w.form))
        or sys.exit(f"error: no variant asks for {w.form}"),
    output:
        directory("models/{model}/{form}"),
    log:
        "logs/pack/{model}.{form}.log",
    wildcard_constraints:
        form="|".join(FORMS.values()),
    priority: MODELS_FIRST
    conda:
        conda_file("bitsandbytes")
    resources:
        **PLAN.reading_model(),
    params:
        module=lambda w: PACKERS[library_of(w.form)],
        versions=lambda w: runtime_build(library_of(w.form)),
    shell:
        "watched python -m minillm_lab.{params.module}"
        " --safetensors {input.safetensors:q}"
        " --form {wildcards.form}"
        " --output {output:q}"
        " --log {log:q}"


rule facts:
    input:
        weights=lambda w: PLAN.models.path(PLAN.known_model(w.model), w.form),
        original=lambda w: PLAN.models.packed_from(w.model, w.form),
        code=code("models.facts"),
    output:
        f"{RESULTS}/models/{{model}}.{{form}}.json",
    log:
        f"{RESULTS}/logs/facts/{{model}}.{{form}}.log",
    priority: MODELS_FIRST
    conda:
        "../../envs/transformers.yaml"
    resources:
        **PLAN.reading_model(),
    params:
        origin=lambda w, input: PLAN.models.origin(w.model, input.weights),
    shell:
        "python -m minillm_lab.models.facts"
        " --weights {input.weights:q}"
        " --original {input.original:q}"
        " --output {output:q}"
        " --log {log:q}"


rule prompt:
    input:
        tokenizer=lambda w: PLAN.models.tokenizer(PLAN.known_model(w.model)),
        code=code("models.prompt"),
    output:
        f"{RESULTS}/prompts/{{model}}.json",
    log:
        f"{RESULTS}/logs/prompt/{{model}}.log",
    priority: MODELS_FIRST
    conda:
        "../../envs/llama.cpp.yaml"
    params:
        origin=lambda w, input: PLAN.models.origin(w.model, input.tokenizer),
        question=lambda w: EXPERIMENT.prompt,  # braces in it are no wildcards
    shell:
        "watched python -m minillm_lab.models.prompt"
        " --tokenizer {input.tokenizer:q}"
        " --question {params.question:q}"
        " --output {output:q}"
        " --log {log:q}"
