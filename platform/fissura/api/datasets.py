"""The verbs for data sets with masks or labels, as functions."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fissura.api.arguments import AnyPath, Data, maybe_path, named_in
from fissura.core.brief import Brief, Rows
from fissura.core.errors import SpecError
from fissura.core.progress import Say, silent
from fissura.core.spec import Spec
from fissura.core.text import size
from fissura.data.sample import SPLITS

if TYPE_CHECKING:
    from fissura.data.check import CheckReport
    from fissura.data.datasets import Named
    from fissura.data.resize import AnyResize

Count = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Preparation(Brief):
    """Data sets prepared for every trial of this machine: the folder of all prepared data, the digest of
    their content, as leaderboards show it, and the number of images in each split."""

    cache: Path
    digest: str
    samples: dict[str, int]

    def lines(self) -> list[str]:
        """The number of images in each split, and the cache folder."""
        counts = ", ".join(f"{count} {split}" for split, count in self.samples.items())
        return [f"{counts}: {self.cache}"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each split."""
        return [{"split": split, "images": count} for split, count in self.samples.items()]


@dataclass(frozen=True, repr=False)
class Pruning(Brief):
    """How many bytes removing prepared images freed in the folder `cache`."""

    cache: Path
    freed_bytes: int

    def lines(self) -> list[str]:
        """The freed size and the folder."""
        return [f"{size(self.freed_bytes)} freed: {self.cache}"]

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        return [{"cache": str(self.cache), "freed_bytes": self.freed_bytes}]


@overload
def check(  # type: ignore[overload-overlap]  # a text is a sequence of texts to mypy
    data: "Named", *, resize: "AnyResize | None" = None, on_image: Count | None = None
) -> "CheckReport": ...


@overload
def check(
    data: "Sequence[Named]", *, resize: "AnyResize | None" = None, on_image: Count | None = None
) -> "Rows[CheckReport]": ...


def check(
    data: Data, *, resize: "AnyResize | None" = None, on_image: Count | None = None
) -> "CheckReport | Rows[CheckReport]":
    """Every defect of a data set with masks or labels; a report for each of several. Bad files raise nothing.

    Counts the cracks that `resize` (by default 512x512) would lose. Calls `on_image` with the number of
    images read and their total, for each data set.
    """
    from fissura.data.check import WORKING_SIZE, parse_source
    from fissura.data.check import check as check_source

    size = resize or WORKING_SIZE
    sources = [parse_source(named) for named in named_in(data)]
    reports = [check_source(source, resize=size, on_sample=on_image) for source in sources]
    if isinstance(data, str | Path | Spec):
        return reports[0]
    return Rows(
        reports, head=lambda checked: [line for report in checked for line in report.lines()], run=None
    )


def prepare(
    data: Data,
    *,
    resize: "AnyResize | None" = None,
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> Preparation:
    """Reads every image of the data sets once, into the cache that all trials of this machine share.

    For data sets with masks it keeps the pixels, at `resize` or at their own size, and reports lost cracks
    and skipped files through `say`; for labelled ones the digests of the images and the squares found in
    them. Calls `on_image` with the number of prepared images with masks and their total.
    """
    from fissura.data.cache import default_cache
    from fissura.data.cache import prepare as prepare_images
    from fissura.data.content import notes_of
    from fissura.data.labelled import image_keys
    from fissura.data.labelled.keys import digest_of_keyed
    from fissura.data.resize import Native
    from fissura.data.sources import digest_sources, labelled, masked, parse_either

    folder = maybe_path(cache) or default_cache()
    sources = parse_either(named_in(data))
    if masked(sources) and labelled(sources):
        raise SpecError(
            "data sets that are prepared together all have masks, or all labels: "
            f"{masked(sources)[0]} has masks, and {labelled(sources)[0]} labels; prepare them apart"
        )
    if masked(sources):
        content = digest_sources(sources, directory=folder)
        prepared = prepare_images(
            masked(sources),
            resize=resize or Native(),
            directory=folder,
            content=content,
            on_sample=on_image,
        )
        for remark in [*notes_of(masked(sources)), *prepared.remarks]:
            say(remark)
        counts = {str(split): len(prepared.indices(split)) for split in SPLITS}
        return Preparation(folder, content, counts)
    if resize is not None:
        raise SpecError(
            f"--size: is for data with masks, and {labelled(sources)[0]} has labels; leave it out"
        )
    images = image_keys(labelled(sources), directory=folder)
    splits = Counter(str(keyed.image.split) for keyed in images)
    return Preparation(folder, digest_of_keyed(images), dict(splits))


def prune(*, keep_gib: float, cache: AnyPath | None = None) -> Pruning:
    """Removes prepared images, the least recently used first, until the others take `keep_gib` GiB at most.

    Processes that have them open keep reading them; later ones prepare their images again.
    """
    from fissura.data.cache import default_cache
    from fissura.data.cache import prune as prune_cache

    folder = maybe_path(cache) or default_cache()
    return Pruning(folder, prune_cache(folder, keep_bytes=keep_gib * 2**30))
