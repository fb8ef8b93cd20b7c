"""Data sets as a command line names them."""

from collections.abc import Sequence

from fissura.core.errors import DataError, UserError
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_dataset


def parse_datasets(texts: Sequence[str]) -> tuple[Dataset, ...]:
    """The data sets named `KIND:ROOT`, with absolute roots.

    Raises:
        UserError: with all problems at once; also when none is named, or one twice.
    """
    if not texts:
        raise DataError("--data: name at least one data set, such as `folder:/data/bridge`")
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
