"""Names for an experiment, its models and their variants, from the sources as they were named."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from minillm_lab.models.labels import TYPE_AT_END

LONGEST = 80  # characters of a name, as the config allows
OF_A_MODEL = 50  # of a model among several: its variants' names begin with it


def experiment_name(sources: Sequence[str]) -> str:
    """A name for the experiment: that of its source, or those of all beside each other."""
    if len(sources) == 1:
        path = Path(sources[0])
        return plain((path.absolute() if path.exists() else path).name)
    names = list(dict.fromkeys(owner_and_name(source)[1] for source in sources))
    return names[0] if len(names) == 1 else plain("-vs-".join(map(without_gguf, names)))


def model_names(of_each: Sequence[Sequence[str]], experiment: str) -> list[str]:
    """A name for each model, given the sources of each: that of its first source; none twice.

    A model alone goes by the experiment's name.
    """
    if len(of_each) == 1:
        return [without_gguf(experiment)]
    found = [owner_and_name(sources[0]) for sources in of_each]
    names = []
    for owner, name in found:
        owners = {other for other, same in found if same == name}
        whole = without_gguf(name)
        names.append(plain(f"{owner}-{whole}" if len(owners) > 1 else whole, OF_A_MODEL))
    return unique(names)


def variant_names(of_each: Mapping[str, Iterable[str]]) -> list[str]:
    """Names for all variants, given each model's own for them; none twice.

    Those of several models begin with the model's.
    """
    if len(of_each) == 1:
        return list(*of_each.values())
    return unique([plain(f"{model}-{name}") for model, names in of_each.items() for name in names])


def owner_and_name(source: str) -> tuple[str, str]:
    """The owner or the folder of one of several sources, and its name; a file's without its type.

    A file whose name is its type alone goes by its folder.
    """
    path = Path(source)
    if not path.exists():
        owner, _, name = source.rpartition("/")
        return plain(owner), plain(name)
    whole = path.absolute()
    if path.is_file():
        stem = TYPE_AT_END.sub("", whole_stem(path.name))
        whole = whole.with_name(stem) if stem else whole.parent
    return plain(whole.parent.name), plain(whole.name)


def whole_stem(name: str) -> str:
    """A file's name without what every GGUF, or each part of one, ends in."""
    return re.sub(r"-\d{5}-of-\d{5}$", "", name.removesuffix(".gguf"))


def without_gguf(name: str) -> str:
    return re.sub(r"[-_.]gguf$", "", name)


def plain(text: str, longest: int = LONGEST) -> str:
    """A text as a name of the config; letters lose their accents."""
    letters = re.sub(r"[\u0300-\u036f]", "", normalize("NFKD", whole_stem(text)))
    name = re.sub(r"[^a-z0-9._-]+", "-", letters.lower()).strip("-._")
    return name[:longest].rstrip("-._") or "model"


def unique(names: Sequence[str]) -> list[str]:
    """The same names, a number behind each that was there before."""
    found: list[str] = []
    for name in names:
        tries = [name, *(f"{name[: LONGEST - 5]}-{i}" for i in range(2, len(names) + 2))]
        taken = {*found, *(set(names) - {name})}
        found.append(next(one for one in tries if one not in taken))
    return found
