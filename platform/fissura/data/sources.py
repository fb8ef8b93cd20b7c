"""Data sets with masks and with labels: their names, and the digest of their content."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fissura.core import text
from fissura.core.errors import DataError
from fissura.data.content import content_digest
from fissura.data.dataset import Dataset
from fissura.data.dataset_names import name_of, unique_names
from fissura.data.datasets import AnyDataset, Named, kind_of, parse_datasets
from fissura.data.labelled import (
    AnyLabelled,
    ClassFolder,
    LabelledDataset,
    labelled_digest,
    labelled_kinds,
    parse_labelled,
)
from fissura.data.labelled.squares import CutSquares

AnySource = Annotated[AnyDataset | AnyLabelled, Field(discriminator="kind")]
ImageData = Dataset | LabelledDataset


def parse_either(texts: Sequence[Named]) -> tuple[ImageData, ...]:
    """The data sets by their kinds, those with masks first; the path of a folder gets the kind `folder`.

    Raises:
        UserError: with all problems at once.
    """
    with_labels = [named for named in texts if kind_of(named) in labelled_kinds()]
    others = [named for named in texts if named not in with_labels]
    return (
        *(parse_datasets(others) if others or not with_labels else ()),
        *(parse_labelled(with_labels) if with_labels else ()),
    )


def digest_sources(sources: Sequence[ImageData], *, directory: Path | None) -> str:
    """Sixteen hex digits that identify the content of the data sets, which all have masks, or all labels.

    Raises:
        DataError: with all problems of the layouts, or all unreadable files.
    """
    if masked(sources):
        return content_digest(masked(sources), directory=directory)
    return labelled_digest(labelled(sources), directory=directory)


def change_of(sources: Sequence[ImageData], *, content: str, directory: Path | None) -> str:
    """A message if the data no longer have the digest `content`; else ""."""
    try:
        held = digest_sources(sources, directory=directory)
    except DataError as error:
        held = f"not whole: {error.problems[0]}"
    if held == content:
        return ""
    return (
        f"the images, masks or labels changed while the study ran: they were {content}, and are {held} now;"
        f" every trial of it saw {content}. Put them back, or name with"
        " --data where they lie now, before you go on with it"
    )


def root_of(source: ImageData) -> Path:
    """The folder of a data set; the source's if it is cut from one."""
    if isinstance(source, CutSquares):
        return source.source.root
    if not isinstance(source, Dataset | ClassFolder):
        raise TypeError(source)
    return source.root


def moved_to(source: ImageData, root: Path) -> ImageData:
    """The data set in another folder."""
    if isinstance(source, CutSquares):
        return source.model_copy(update={"source": source.source.model_copy(update={"root": root})})
    return source.model_copy(update={"root": root})


def called(sources: Sequence[ImageData], *, content: str) -> str:
    """The names of a study's data in a report."""
    return text.listed([text.data(name, content) for name in _names(sources)])


def described(sources: Sequence[ImageData], *, content: str) -> str:
    """The names and folders of a study's data in a report."""
    places = [
        f"{source.info.title}, {source.root}" if isinstance(source, Dataset) else str(source)
        for source in sources
    ]
    named = zip(_names(sources), places, strict=True)
    return ", ".join(f"{text.data(name, content)}: {place}" for name, place in named)


def _names(sources: Sequence[ImageData]) -> list[str]:
    return unique_names(name_of(source.plain()) for source in sources)


def masked(sources: Sequence[ImageData]) -> tuple[Dataset, ...]:
    """The data sets with masks."""
    return tuple(source for source in sources if isinstance(source, Dataset))


def labelled(sources: Sequence[ImageData]) -> tuple[LabelledDataset, ...]:
    """The data sets with labels."""
    return tuple(source for source in sources if isinstance(source, LabelledDataset))
