"""The registry of labelled data: one file a kind, and the union that lists them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import quote

from pydantic import Field

from fissura.core.errors import DataError, SpecError, UserError
from fissura.data.datasets import Named, check_number, kinds, parse_dataset, suggestion, text_of
from fissura.data.labelled.base import LabelledDataset, LabelledImage, Listing
from fissura.data.labelled.class_folder import ClassFolder
from fissura.data.labelled.keys import (
    KeyedImage,
    check_classes,
    common_classes,
    image_keys,
    labelled_digest,
    read_keyed,
)
from fissura.data.labelled.patches import Patches
from fissura.data.labelled.severity import Severity
from fissura.data.options import exists, split_options, with_options

__all__ = [
    "AnyLabelled",
    "ClassFolder",
    "KeyedImage",
    "LabelledDataset",
    "LabelledImage",
    "Listing",
    "Patches",
    "Severity",
    "check_classes",
    "common_classes",
    "image_keys",
    "labelled_digest",
    "labelled_kinds",
    "parse_labelled",
    "read_keyed",
]

AnyLabelled = Annotated[ClassFolder | Patches | Severity, Field(discriminator="kind")]

FORMS = {
    "class_folder": "class_folder:ROOT",
    "patches": "patches:KIND:ROOT",
    "severity": "severity:MM_PER_PIXEL[:LIMITS_MM]:KIND:ROOT",
}


def labelled_kinds() -> dict[str, type[ClassFolder | Patches | Severity]]:
    """Every kind of labelled data by its name, in the order of the union."""
    union = get_args(get_args(AnyLabelled)[0])
    return {member.model_fields["kind"].default: member for member in union}


def parse_labelled(texts: Sequence[Named]) -> tuple[ClassFolder | Patches | Severity, ...]:
    """The labelled data that `texts` name, with absolute roots; nothing is read.

        class_folder:ROOT                            a folder a class
        patches:KIND:ROOT                            crack and no-crack squares from masks
        severity:MM_PER_PIXEL[:LIMITS_MM]:KIND:ROOT  squares with a crack, by its width; limits: `0.1,0.2`

    The path of a folder is a class_folder; an object is returned as it is.

    Raises:
        DataError: with all problems at once; also when none is named, or one twice.
    """
    check_number(texts, example="labelled data set, such as `class_folder:/data/walls`")
    problems: list[str] = []
    datasets: list[ClassFolder | Patches | Severity] = []
    for text in texts:
        try:
            datasets.append(parse_labels(text).resolved())
        except UserError as error:
            problems += error.problems
    named = [dataset.label_text for dataset in datasets]
    problems += [
        f"--data: {text} is named twice; name it once"
        for text in sorted({text for text in named if named.count(text) > 1})
    ]
    if problems:
        raise DataError(*problems)
    return tuple(datasets)


def parse_labels(named: Named) -> ClassFolder | Patches | Severity:
    """One data set of `parse_labelled`, its root as it is named.

    Raises:
        UserError: it is none.
    """
    if isinstance(named, ClassFolder | Patches | Severity):
        return named
    text = text_of(named, folders="class_folder")
    kind, _, rest = text.partition(":")
    if kind not in FORMS:
        raise SpecError(f"`{text}`: labelled data is {' or '.join(FORMS.values())}, {_no_kind(kind, rest)}")
    if not rest:
        raise SpecError(f"`{text}`: {kind} data is {FORMS[kind]}: all after `{kind}` is missing; add it")
    if kind == "class_folder":
        root, options = split_options(rest)
        return with_options(ClassFolder, options, text=text, given={"root": Path(root).expanduser()})
    if kind == "patches":
        source, own = _source(text, rest, Patches)
        return with_options(Patches, own, text=text, given={"source": source})
    scale, _, rest = rest.partition(":")
    head, _, tail = rest.partition(":")
    limits = head if tail and _numeric(head) else None
    given: dict[str, object] = {"mm_per_pixel": _number(text, scale, "MM_PER_PIXEL")}
    given["source"], own = _source(text, rest if limits is None else tail, Severity)
    if limits is not None:
        given["limits_mm"] = tuple(_number(text, limit, "LIMITS_MM") for limit in limits.split(","))
    return with_options(Severity, own, text=text, given=given)


def _no_kind(kind: str, rest: str) -> str:
    if kind in kinds():
        return (
            f"and `{kind}` has masks and no labels; cut squares from it: `patches:{kind}:{rest or 'ROOT'}`, "
            f"or at 0.1 mm a pixel `severity:0.1:{kind}:{rest or 'ROOT'}`"
        )
    text = f"{kind}:{rest}" if rest else kind
    own = "patches:folder" if exists(Path(text).expanduser() / "masks") else "class_folder"
    return f"and `{kind}` is no kind; {suggestion(text, FORMS, own=own)}known: {', '.join(FORMS)}"


def _source(
    text: str, source: str, cut: type[Patches | Severity]
) -> tuple[dict[str, object], dict[str, str]]:
    """The data set that squares are cut from, and the squares' own options. Where both have an option,
    `source.KEY` is the data set's.
    """
    root, options = split_options(source)
    own = {key: value for key, value in options.items() if key in cut.model_fields}
    rest = {key.removeprefix("source."): value for key, value in options.items() if key not in own}
    query = "&".join(f"{key}={quote(value)}" for key, value in rest.items())
    try:
        return parse_dataset(f"{root}?{query}" if query else root).plain(), own
    except UserError as error:
        raise SpecError(*(f"`{text}`: {problem}" for problem in error.problems)) from None


def _numeric(text: str) -> bool:
    """Whether `text` is numbers: a kind begins with a letter."""
    return not text[:1].isalpha()


def _number(text: str, value: str, what: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise SpecError(
            f"`{text}`: {what} is in numbers: `{value}` is none; write {FORMS['severity']}, such as "
            f"`severity:0.05:0.1,0.2:cfd:/data/cfd`"
        ) from None
