"""The registry of data sets: one file each, and the union that lists them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, get_args

from pydantic import Field

from fissura.core.errors import DataError, SpecError, UserError
from fissura.data.dataset import Dataset
from fissura.data.datasets.aiglern import AigleRN
from fissura.data.datasets.cfd import CFD
from fissura.data.datasets.crack500 import Crack500
from fissura.data.datasets.crackbundle import CRKWH100, CrackLS315, CrackTree260, Stone331
from fissura.data.datasets.cracktree200 import CrackTree200
from fissura.data.datasets.deepcrack import DeepCrack
from fissura.data.datasets.drive import Drive
from fissura.data.datasets.folder import Folder
from fissura.data.datasets.ozgenel458 import Ozgenel458
from fissura.data.datasets.synthetic import Synthetic
from fissura.data.options import LONGEST_TEXT, exists, split_options, with_options

if TYPE_CHECKING:
    from fissura.data.labelled.base import LabelledDataset

AnyDataset = Annotated[
    CFD
    | DeepCrack
    | Drive
    | Crack500
    | CrackTree200
    | CrackTree260
    | CRKWH100
    | CrackLS315
    | Stone331
    | Ozgenel458
    | AigleRN
    | Folder
    | Synthetic,
    Field(discriminator="kind"),
]


Named: TypeAlias = "str | Path | Dataset | LabelledDataset"
"""A data set: the text KIND:ROOT, its object, or the path of the user's own folder."""

MOST_NAMED = 256
LABELS_ONLY = ("class_folder", "patches", "severity")  # the kinds of `fissura.data.labelled`


def kinds() -> dict[str, type[Dataset]]:
    """Every kind of data set with masks by its name, in the order of the union."""
    union = get_args(get_args(AnyDataset)[0])
    return {member.model_fields["kind"].default: member for member in union}


def kind_of(named: "Named") -> str:
    """What stands where the kind of a data set stands: all before the first colon."""
    return str(named).partition(":")[0]


def text_of(named: "Named", *, folders: str) -> str:
    """A data set as `--data` names it; the path of a folder gets the kind `folders`.

    Raises:
        SpecError: the text is too long or holds a NUL.
    """
    text = str(named)
    if len(text) > LONGEST_TEXT or "\0" in text:
        raise SpecError(
            f"{text!r:.80}: a data set is named in {LONGEST_TEXT} characters at most, none of them NUL (this"
            f" one has {len(text)}); shorten it"
        )
    if isinstance(named, Path) and kind_of(text) not in {*kinds(), *LABELS_ONLY}:
        return f"{folders}:{text}"
    return text


def suggestion(text: str, known: Iterable[str], *, own: str) -> str:
    """A "did you mean" question for a `text` without a known kind, or "": a bare path gets the kind `own`."""
    kind, _, root = text.partition(":")
    if "/" in kind or kind.startswith((".", "~")) or (kind and exists(Path(text))):
        return f"did you mean `{own}:{text}`? "
    near = get_close_matches(kind, list(known), n=1)
    return f"did you mean `{near[0]}:{root or '...'}`? " if near else ""


def parse_dataset(named: "Named") -> Dataset:
    """The data set with masks that `KIND:ROOT` or `KIND:ROOT?OPTIONS` names, a path as `folder`, or `named`
    itself; nothing is read.

    Raises:
        SpecError: no such kind or option, or no root.
        DataError: the kind has no masks.
    """
    if isinstance(named, Dataset):
        return named
    text = text_of(named, folders="folder")
    kind, _, root = text.partition(":")
    known = kinds()
    if kind in LABELS_ONLY:
        raise DataError(
            f"`{text}`: segmentation needs a mask of every image, and a {kind} set has labels only; "
            f"use a kind with masks, such as `folder:ROOT` with images/ and masks/"
        )
    if kind not in known:
        raise SpecError(
            f"`{text}`: a data set is KIND:ROOT and `{kind}` is no kind;"
            f" {suggestion(text, known, own='folder')}known: {', '.join(known)}"
        )
    if not root:
        raise SpecError(
            f"`{text}`: a data set is KIND:ROOT and the root is missing; give its folder: "
            f"`{kind}:/data/{kind}`"
        )
    root, options = split_options(root)
    return with_options(known[kind], options, text=text, given={"root": Path(root).expanduser()})


def check_number(texts: "Sequence[Named]", *, example: str) -> None:
    """Checks that 1 to `MOST_NAMED` data sets are named.

    Raises:
        DataError: they are not.
    """
    if not texts:
        raise DataError(f"--data: name at least one {example}")
    if len(texts) > MOST_NAMED:
        raise DataError(f"--data: {len(texts)} data sets are named, {MOST_NAMED} at most; name fewer")


def parse_datasets(texts: "Sequence[Named]") -> tuple[Dataset, ...]:
    """The data sets of `parse_dataset`, with absolute roots.

    Raises:
        UserError: with all problems at once; also when none is named, or one twice.
    """
    check_number(texts, example="data set, such as `folder:/data/bridge`")
    problems: list[str] = []
    datasets: list[Dataset] = []
    for text in texts:
        try:
            dataset = parse_dataset(text)
            datasets.append(dataset.model_copy(update={"root": dataset.root.expanduser().resolve()}))
        except UserError as error:
            problems += error.problems
    roots = [str(dataset.root) for dataset in datasets]
    problems += [
        f"--data: {root} is named twice; name it once"
        for root in sorted({root for root in roots if roots.count(root) > 1})
    ]
    if problems:
        raise DataError(*problems)
    return tuple(datasets)
