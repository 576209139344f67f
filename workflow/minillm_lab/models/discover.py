"""What a source offers to an experiment: a repository of the hub, files or a folder on this disk.

Only headers and small files are read. Whatever cannot be run is refused here in one line.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

from minillm_lab.experiment.sources import BLOB, UNQUANTIZED
from minillm_lab.header import Header, parse_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.found import Found, Split, found_in, model_of, usable
from minillm_lab.models.labels import CUT_UP, grouped, labelled, named
from minillm_lab.models.ollama import PREFIX, in_store
from minillm_lab.models.remote import File, Repository, read_headers, read_repository
from minillm_lab.models.weights import ODD, PLAIN, hub_safetensors, local_safetensors

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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


def discover(
    sources: list[str], types: list[str], apart: bool = False, whole: bool = True
) -> list[Found]:
    """What the sources offer, by model. GGUF files of one model are one, wherever they were named.

    With ``apart`` each source is a model of its own. ``types`` choose among GGUF files, by label or
    type. The unquantized weights, which others are compared with, are among it if they are wanted
    (``whole``), whatever the types.
    Raises LabError where there is nothing that can be run, or no file of a type asked for.
    """
    try:
        kept = {source: in_store(source) for source in sources if source.startswith(PREFIX)}
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror or error}") from error
    if kept:
        files = {source: str(shown(blob)) for source, (blob, _) in kept.items()}
        names = {file: source for source, file in reversed(files.items())}
        found = discover([files.get(s, s) for s in sources], types, apart, whole)
        beside = {files[source]: lines for source, (_, lines) in kept.items()}
        return [
            replace(
                one,
                sources=tuple(names.get(s, s) for s in one.sources),
                left_out=one.left_out + sum((beside.get(s, ()) for s in one.sources), ()),
            )
            for one in found
        ]
    sources = sources if apart else list(dict.fromkeys(sources))
    here = [Path(source) for source in sources if Path(source).exists()]
    for name in sources:
        if not Path(name).exists() and (not REPOSITORY.fullmatch(name) or name.endswith(".gguf")):
            raise LabError(f"{name}: no such file or folder, and no repository's name (owner/name)")
    try:
        local = iter(on_disk(here, apart))
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror or error}") from error
    read = [next(local) if Path(s).exists() else on_hub(s, types, whole) for s in sources]
    on_hub_whole = [] if apart else [s for s in read if isinstance(s.place, Repository)]
    bases = {source.said: source.safetensors for source in on_hub_whole if source.safetensors}
    found = [of_one_model(group, types, bases, whole) for group in by_model(read, apart)]
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


def of_one_model(
    sources: list[Source], types: list[str], bases: dict[str, Found], compared: bool
) -> Found:
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
    found = found_in(said, gguf, types, place, left_out, compared)
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
    if found.unquantized or not repositories or not compared:
        return found
    return with_base(found, repositories)


def relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def on_hub(name: str, types: list[str], whole: bool) -> Source:
    """What a repository offers; the headers of those of its GGUF files that may be asked for."""
    repository = read_repository(name)
    every = [file for file in repository.files if file.path.endswith(".gguf")]
    files = [file for file in every if PLAIN.fullmatch(file.path)]
    if every and not files:
        raise LabError(f"{name}: {every[0].path}: {ODD}")
    if not files:
        weights, told = hub_safetensors(repository)
        return Source(
            name, repository, [], Found([], weights, [], repository, told, sources=(name,))
        )
    labels = labelled(grouped(files, name))
    if types and all(any(named(label, type_) for label in labels) for type_ in types):
        wanted = (*types, *(UNQUANTIZED if whole else ()))  # no other's header is needed
        labels = {
            label: parts
            for label, parts in labels.items()
            if any(named(label, type_) for type_ in wanted)
        }
    headers = read_headers(repository, [file for parts in labels.values() for file in parts])
    splits = [(parts, [next(headers) for _ in parts]) for parts in labels.values()]
    odd = tuple(f"{file.path} ({ODD})" for file in every if file not in files)
    paths = [file.path for file in repository.files]
    left_out = odd + not_taken(paths) + cut_up(paths)
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
        listed = [
            File(relative(f, folder), f.stat().st_size, blob[1] if blob else None)
            for f, blob in ((file, BLOB.fullmatch(file.name)) for file in sorted(owner))
        ]
        splits: dict[Path, list[Split]] = {path: [] for path in batch}
        for parts in grouped(listed, " ".join(map(str, batch))):
            headers = [local_header(folder / file.path) for file in parts]
            splits[owner[folder / parts[0].path]].append((parts, headers))
        for path in batch:
            weights = None
            if not below[path]:
                files, told = local_safetensors(path)
                weights = Found([], files, [], path, told, sources=(str(path),))
            inside = path.rglob("*") if path.is_dir() and below[path] else ()
            names = [relative(file, path) for file in inside]
            left_out = not_taken(name for name in names if "/" not in name) + cut_up(names)
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
    if place.suffix != ".gguf" and not BLOB.fullmatch(place.name):
        raise LabError(f"{path}: its name does not end in .gguf; name a link to it that does")
    return [place]


def not_taken(names: Iterable[str]) -> tuple[str, ...]:
    """What to say of safetensors that lie beside GGUF files."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    more = f" and {len(weights) - 1} more" if weights[1:] else ""
    return tuple(f"{one}{more} (the GGUF files beside it are taken)" for one in weights[:1])


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
