"""The safetensors that are a source's model, on the hub or on this disk.

Whatever cannot be run is refused here in one line.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import INDEX, SINGLE, chosen_safetensors
from minillm_lab.models.found import Told
from minillm_lab.models.remote import File, Repository, as_object, read_json

GENERATING = re.compile(r"(ForCausalLM|LMHeadModel)$")  # of Transformers' architectures
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ODD = "its name holds a space, a brace or a backslash, which no path of an experiment may"
PLAIN = re.compile(r"[^\\\s{}]+")  # a path in a repository as a config may hold it


def hub_safetensors(repository: Repository) -> tuple[list[File], Told]:
    """The safetensors that are a repository's model, and what its config tells of them.

    Raises LabError if it has none that can be run.
    """
    files = {file.path: file for file in repository.files if "/" not in file.path}
    weights = check_weights(files, repository.name)
    if strange := [name for name in weights if not PLAIN.fullmatch(name)]:
        raise LabError(f"{repository.name}: {strange[0]}: {ODD}")
    if "config.json" not in files:
        raise LabError(f"{repository.name}: has no config.json, which says what the model is")
    told = check_architectures(read_json(repository, "config.json"), repository.name)
    if INDEX in files:
        index = read_json(repository, INDEX).get("weight_map")
        places = list(index.values()) if isinstance(index, dict) else []
        if not places or not all(isinstance(name, str) for name in places):
            raise LabError(f"{repository.name}: {INDEX} does not say where the weights are")
        named = sorted(set(places))
        if missing := [name for name in named if name not in files]:
            raise LabError(f"{repository.name}: {INDEX} names {missing[0]}, which is missing")
        return [files[name] for name in named], told
    if SINGLE not in weights and len(weights) > 1:
        raise LabError(
            f"{repository.name}: it is not clear which of {len(weights)} *.safetensors files are"
            " the model"
        )
    return [files[SINGLE] if SINGLE in weights else files[weights[0]]], told


def local_safetensors(folder: Path) -> tuple[list[File], Told]:
    """The same of a folder on this disk."""
    if not folder.is_dir():
        raise LabError(f"{folder}: neither a GGUF file nor a folder")
    files = {path.name: File(path.name, path.stat().st_size) for path in folder.iterdir()}
    weights = check_weights(files, str(folder))
    if "config.json" not in files:
        raise LabError(f"{folder}: has no config.json, which says what the model is")
    told = check_architectures(
        as_object((folder / "config.json").read_bytes(), f"{folder}/config.json"), str(folder)
    )
    return [files[name] for name in chosen_safetensors(folder, weights, str(folder))], told


def check_weights(files: Iterable[str], name: str) -> list[str]:
    """The names that are safetensors. Raises LabError where none is, and says what is there."""
    weights = sorted(file for file in files if file.endswith(".safetensors"))
    if not weights:
        pickled = sorted(file for file in files if file.endswith(PICKLES))
        raise LabError(
            f"{name}: its weights are pickles alone ({pickled[0]}), which could run code: convert"
            " them to safetensors, or take another repository"
            if pickled
            else f"{name}: its files end in .GGUF; only .gguf is known: rename copies of them"
            if any(file.lower().endswith(".gguf") for file in files)
            else f"{name}: has no weights: neither *.gguf nor *.safetensors"
        )
    return weights


def check_architectures(config: dict[str, object], name: str) -> Told:
    """What a config tells of the weights.

    Raises LabError unless the model writes a text token by token, from unquantized weights.
    """
    said = config.get("architectures")
    architectures = [str(one) for one in said] if isinstance(said, list) else []
    if not any(GENERATING.search(architecture) for architecture in architectures):
        what = ", ".join(architectures) or "without architectures in its config.json"
        raise LabError(
            f"{name}: {what}: not a model that generates text from text alone (…ForCausalLM)"
        )
    if how := config.get("quantization_config"):
        method = how.get("quant_method", "some method") if isinstance(how, dict) else "some method"
        raise LabError(
            f"{name}: its weights are quantized already ({method}); name the unquantized model"
        )
    whole = "float32" in (config.get("dtype"), config.get("torch_dtype"))
    sizes = [config.get(key) for key in ("hidden_size", "vocab_size")]
    return Told(4 if whole else 2, *(n if isinstance(n, int) and n > 0 else 0 for n in sizes))
