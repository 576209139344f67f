"""What a source offers to an experiment: a repository of the hub, files or a folder on this disk.

Only headers and small files are read. Whatever cannot be run is refused here in one line.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.header import Header, parse_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import INDEX, SINGLE, chosen_safetensors
from minillm_lab.models.found import Found, Split, found_in, model_of, usable
from minillm_lab.models.labels import CUT_UP, grouped, labelled, named
from minillm_lab.models.remote import (
    File,
    Repository,
    as_object,
    read_headers,
    read_json,
    read_repository,
)

GENERATING = re.compile(r"(ForCausalLM|LMHeadModel)$")  # of Transformers' architectures
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ODD = "its name holds a space, a brace or a backslash, which no path of an experiment may"
PLAIN = re.compile(r"[^\\\s{}]+")  # a path in a repository as a config may hold it


@dataclass(frozen=True)
class Source:
    """A source as it was named, and what was read in it: GGUF files, or else safetensors."""

    said: str
    place: Repository | Path  # on this disk the folder from which its files' paths start
    gguf: list[Split]
    safetensors: Found | None = None
    left_out: tuple[str, ...] = ()


def spelt(source: str) -> str:
    """A source in its one spelling: a path from here or from the root, or owner/name."""
    try:
        if (path := Path(source)).exists():
            return str(shown(path))
    except OSError as error:
        raise LabError(f"{source}: {error.strerror or error}") from error
    if "://" in source:
        from huggingface_hub import constants

        source = source.removeprefix(f"{constants.ENDPOINT}/")
    return source.rstrip("/") or source


def shown(path: Path) -> Path:
    """A path as the workflow reads it: from the working folder, or from the root."""
    whole = Path(os.path.normpath(path.absolute()))
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def discover(sources: list[str], types: list[str], apart: bool = False) -> list[Found]:
    """What the sources offer, by model. GGUF files of one model are one, wherever they were named.

    With ``apart`` each source is a model of its own. ``types`` choose among GGUF files, by label or
    type. Raises LabError where there is nothing that can be run, or no file of a type asked for.
    """
    sources = sources if apart else list(dict.fromkeys(sources))
    here = [Path(source) for source in sources if Path(source).exists()]
    for name in sources:
        if not Path(name).exists() and (not REPOSITORY.fullmatch(name) or name.endswith(".gguf")):
            raise LabError(f"{name}: no such file or folder, and no repository's name (owner/name)")
    try:
        local = iter(on_disk(here, apart))
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror or error}") from error
    read = [next(local) if Path(s).exists() else on_hub(s, types) for s in sources]
    whole = [s for s in read if s.safetensors and isinstance(s.place, Repository) and not apart]
    bases = {source.said: source.safetensors for source in whole if source.safetensors}
    found = [of_one_model(group, types, bases) for group in by_model(read, apart)]
    taken = {one.base_named for one in found}
    return [one for one in found if one.gguf or one.sources[0] not in taken]


def by_model(sources: list[Source], apart: bool) -> list[list[Source]]:
    """The sources whose GGUF files are of one model; safetensors are a model of their own."""
    groups: dict[object, list[Source]] = {}
    beside = []
    for number, source in enumerate(sources):
        gguf, _ = usable(source.said, source.gguf)
        if source.safetensors or (apart and source.gguf):
            groups[number] = [source]
        elif gguf:
            groups.setdefault((type(source.place), model_of(gguf[0].header)), []).append(source)
        elif source.gguf:  # else its files were named before
            beside.append(source)
    for source in beside:  # what generates no text lies beside a model of the same place
        kin = [g for g in groups.values() if g[0].gguf and type(g[0].place) is type(source.place)]
        if kin:
            kin[0].append(source)
        else:
            groups[source.said] = [source]
    return list(groups.values())


def of_one_model(sources: list[Source], types: list[str], bases: dict[str, Found]) -> Found:
    """What sources of one model offer; ``bases`` are safetensors that were named besides."""
    first, said = sources[0], " ".join(source.said for source in sources)
    if first.safetensors:
        return first.safetensors
    gguf, left_out = usable(said, [split for source in sources for split in source.gguf])
    if not gguf:
        raise LabError(f"{said}: nothing in it generates text: {'; '.join(left_out)}")
    left_out += tuple(text for source in sources for text in source.left_out)
    repositories = [s.place for s in sources if isinstance(s.place, Repository)]
    place: list[Repository] | Path = repositories
    if isinstance(folder := first.place, Path):
        parents = [(folder / file.path).parent for one in gguf for file in one.files]
        whole = len(sources) == 1 and Path(said).is_dir()
        common = folder if whole else Path(os.path.commonpath(parents))
        place = shown(common)
        gguf = [
            replace(
                one, files=[replace(f, path=relative(folder / f.path, common)) for f in one.files]
            )
            for one in gguf
        ]
    found = found_in(said, gguf, types, place, left_out)
    found = replace(found, sources=tuple(source.said for source in sources))
    named = {r.base for r in repositories if r.base}
    if len(named) == 1 and (base := next(iter(named))) in bases:
        weights = bases[base]
        return replace(
            found,
            base_named=base,
            safetensors=weights.safetensors,
            safetensors_from=weights.safetensors_from,
        )
    return found if found.unquantized or not repositories else with_base(found, repositories)


def relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def on_hub(name: str, types: list[str]) -> Source:
    """What a repository offers; the headers of those of its GGUF files that may be asked for."""
    repository = read_repository(name)
    every = [file for file in repository.files if file.path.endswith(".gguf")]
    files = [file for file in every if PLAIN.fullmatch(file.path)]
    if every and not files:
        raise LabError(f"{name}: {every[0].path}: {ODD}")
    if not files:
        weights, stored = hub_safetensors(repository)
        return Source(
            name, repository, [], Found([], weights, [], repository, stored, sources=(name,))
        )
    labels = labelled(grouped(files, name))
    if types and all(any(named(label, type_) for label in labels) for type_ in types):
        wanted = (*types, *UNQUANTIZED)  # no other's header is needed
        labels = {
            label: parts
            for label, parts in labels.items()
            if any(named(label, type_) for type_ in wanted)
        }
    headers = read_headers(repository, [file for parts in labels.values() for file in parts])
    splits = [(parts, [next(headers) for _ in parts]) for parts in labels.values()]
    odd = tuple(f"{file.path} ({ODD})" for file in every if file not in files)
    left_out = odd + cut_up(file.path for file in repository.files)
    return Source(name, repository, splits, left_out=left_out)


def with_base(found: Found, repositories: list[Repository]) -> Found:
    """The same with the unquantized safetensors of the base model, where they can be had."""
    bases = sorted({repository.base for repository in repositories if repository.base})
    if not bases:
        return replace(found, base="Its card names no base model.")
    if len(bases) > 1:
        return replace(found, base=f"The cards name different base models: {', '.join(bases)}.")
    base = bases[0]
    from huggingface_hub.errors import RepositoryNotFoundError  # a gated one is one as well

    try:
        if not REPOSITORY.fullmatch(base):
            raise LabError(f"{base!r} is no repository's name")
        repository = read_repository(base)
        weights, _ = hub_safetensors(repository)
    except LabError as error:
        if not isinstance(error.__cause__, (NoneType, RepositoryNotFoundError)):
            raise  # the connection failed: another time it may serve
        return replace(found, base=f"The base model that its card names does not serve: {error}.")
    return replace(found, safetensors=weights, safetensors_from=repository)


def on_disk(paths: list[Path], apart: bool) -> list[Source]:
    """What files and folders on this disk offer; parts of one split may be named one by one."""
    found = []
    for batch in [[path] for path in paths] if apart else [paths] if paths else []:
        below = {path: gguf_below(path) for path in batch}
        owner = {file: path for path in reversed(batch) for file in below[path]}
        whole = len(batch) == 1 and batch[0].is_dir()
        parents = [file.parent for file in owner] or [Path.cwd()]
        folder = Path(
            os.path.normpath(batch[0].absolute()) if whole else os.path.commonpath(parents)
        )
        listed = [File(relative(file, folder), file.stat().st_size) for file in sorted(owner)]
        splits: dict[Path, list[Split]] = {path: [] for path in batch}
        for parts in grouped(listed, " ".join(map(str, batch))):
            headers = [local_header(folder / file.path) for file in parts]
            splits[owner[folder / parts[0].path]].append((parts, headers))
        for path in batch:
            weights = None
            if not below[path]:
                files, stored = local_safetensors(path)
                weights = Found([], files, [], path, stored, sources=(str(path),))
            inside = path.rglob("*") if path.is_dir() and below[path] else ()
            left_out = cut_up(relative(file, path) for file in inside)
            found.append(Source(str(path), folder, splits[path], weights, left_out))
    return found


def gguf_below(path: Path) -> list[Path]:
    """The GGUF files in a folder and the folders in it, or a file itself, with absolute paths.

    Raises LabError if the file is no GGUF.
    """
    if not path.exists():
        raise LabError(f"{path}: no such file or folder")
    place = Path(os.path.normpath(path.absolute()))
    if place.is_dir():
        return list(place.rglob("*.gguf"))
    local_header(path)
    if place.suffix != ".gguf":
        raise LabError(f"{path}: its name does not end in .gguf; name a link to it that does")
    return [place]


def cut_up(names: Iterable[str]) -> tuple[str, ...]:
    """What to say of files whose bytes a publisher cut up, which are no GGUF by themselves."""
    found = sorted(name for name in names if CUT_UP.search(name))
    return tuple(f"{name} (a GGUF cut up; join the pieces with cat)" for name in found)


def local_header(path: Path) -> Header:
    """The header of a file or a part. Raises LabError with what is wrong with it."""
    import mmap

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, str(path))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LabError(f"{path}: not a GGUF file that can be used: {error}") from None


def hub_safetensors(repository: Repository) -> tuple[list[File], int]:
    """The safetensors that are a repository's model, and their bytes per weight.

    Raises LabError if it has none that can be run.
    """
    files = {file.path: file for file in repository.files if "/" not in file.path}
    weights = check_weights(files, repository.name)
    if strange := [name for name in weights if not PLAIN.fullmatch(name)]:
        raise LabError(f"{repository.name}: {strange[0]}: {ODD}")
    if "config.json" not in files:
        raise LabError(f"{repository.name}: has no config.json, which says what the model is")
    stored = check_architectures(read_json(repository, "config.json"), repository.name)
    if INDEX in files:
        index = read_json(repository, INDEX).get("weight_map")
        told = list(index.values()) if isinstance(index, dict) else []
        if not told or not all(isinstance(name, str) for name in told):
            raise LabError(f"{repository.name}: {INDEX} does not say where the weights are")
        named = sorted(set(told))
        if missing := [name for name in named if name not in files]:
            raise LabError(f"{repository.name}: {INDEX} names {missing[0]}, which is missing")
        return [files[name] for name in named], stored
    if SINGLE not in weights and len(weights) > 1:
        raise LabError(
            f"{repository.name}: it is not clear which of {len(weights)} *.safetensors files are"
            " the model"
        )
    return [files[SINGLE] if SINGLE in weights else files[weights[0]]], stored


def local_safetensors(folder: Path) -> tuple[list[File], int]:
    """The same of a folder on this disk."""
    if not folder.is_dir():
        raise LabError(f"{folder}: neither a GGUF file nor a folder")
    files = {path.name: File(path.name, path.stat().st_size) for path in folder.iterdir()}
    weights = check_weights(files, str(folder))
    if "config.json" not in files:
        raise LabError(f"{folder}: has no config.json, which says what the model is")
    stored = check_architectures(
        as_object((folder / "config.json").read_bytes(), f"{folder}/config.json"), str(folder)
    )
    return [files[name] for name in chosen_safetensors(folder, weights, str(folder))], stored


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


def check_architectures(config: dict[str, object], name: str) -> int:
    """The bytes per weight that a config tells, or 2.

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
    return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
