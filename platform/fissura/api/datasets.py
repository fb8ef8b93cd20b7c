"""The verbs about data sets, as functions, for images with masks and with labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fissura.api.given import AnyPath, Data, maybe_path, named_in
from fissura.core.brief import Brief, Rows
from fissura.core.errors import SpecError
from fissura.core.progress import Say, silent
from fissura.core.spec import Spec
from fissura.data.sample import SPLITS

if TYPE_CHECKING:
    from fissura.data.check import CheckReport
    from fissura.data.datasets import Named
    from fissura.data.resize import AnyResize

Count = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Preparation(Brief):
    """Data sets that every trial of this machine can open at once: where they are kept, the digest of what
    they hold, and how many images each split has."""

    cache: Path
    digest: str
    samples: dict[str, int]

    def lines(self) -> list[str]:
        """The images of each split, and where they are kept."""
        counts = ", ".join(f"{count} {split}" for split, count in self.samples.items())
        return [f"{counts}: {self.cache}"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each split."""
        return [{"split": split, "images": count} for split, count in self.samples.items()]


@dataclass(frozen=True, repr=False)
class Pruning(Brief):
    """What removing prepared images freed in the folder `cache`."""

    cache: Path
    freed_bytes: int

    def lines(self) -> list[str]:
        """How much, and where."""
        return [f"{self.freed_bytes / 2**30:.2f} GiB freed: {self.cache}"]

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
    """Every defect of a data set with masks, or of a folder a class; of several, a report of each. Nothing is
    raised for bad files.

    Cracks that would be lost at `resize`, by default 512x512, are counted. `on_image` is told how many images
    of a set are read, and of how many.
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

    Of data sets with masks the pixels are kept, at `resize` or at their own size, and `say` is told of cracks
    that it loses and of files that are left out; of labelled ones the digests of the images and the squares
    that were found in them.
    `on_image` is told how many images with masks are prepared, and of how many.
    """
    from fissura.data.cache import default_cache
    from fissura.data.cache import prepare as prepare_images
    from fissura.data.content import notes_of
    from fissura.data.labelled import image_keys
    from fissura.data.labelled.keys import digest_of_keyed
    from fissura.data.resize import Native
    from fissura.data.sources import labelled, masked, parse_either

    folder = maybe_path(cache) or default_cache()
    sources = parse_either(named_in(data))
    if masked(sources) and labelled(sources):
        raise SpecError(
            "data sets that are prepared together all have masks, or all labels: "
            f"{masked(sources)[0]} has masks, and {labelled(sources)[0]} labels; prepare them apart"
        )
    if masked(sources):
        kept = prepare_images(
            masked(sources), resize=resize or Native(), directory=folder, on_sample=on_image
        )
        for remark in [*notes_of(masked(sources)), *kept.remarks]:
            say(remark)
        counts = {str(split): len(kept.indices(split)) for split in SPLITS}
        return Preparation(kept.directory / kept.digest, kept.digest, counts)
    if resize is not None:
        raise SpecError(
            f"--size: is for data with masks, and {labelled(sources)[0]} has labels; leave it out"
        )
    images = image_keys(labelled(sources), directory=folder)
    splits = Counter(str(keyed.image.split) for keyed in images)
    return Preparation(folder, digest_of_keyed(images), dict(splits))


def prune(*, keep_gib: float, cache: AnyPath | None = None) -> Pruning:
    """Removes prepared images, the least recently used first, until the others take `keep_gib` GiB at most.

    What has them open goes on reading them; what begins later prepares its images again.
    """
    from fissura.data.cache import default_cache
    from fissura.data.cache import prune as prune_cache

    folder = maybe_path(cache) or default_cache()
    return Pruning(folder, prune_cache(folder, keep_bytes=keep_gib * 2**30))
