"""A folder a class: images with a label and without masks."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from fissura.core.errors import DataError
from fissura.data.dataset import DatasetInfo
from fissura.data.file_kinds import is_passed_over
from fissura.data.labelled.base import LabelledDataset, LabelledImage, Listing
from fissura.data.labelled.groups import alike
from fissura.data.options import options_text
from fissura.data.splits import draw
from fissura.data.walk import Walk

# Without case, spaces, `-` and `_`. `ud`, `up`, `uw` are SDNET2018's uncracked decks, pavements, walls.
NO_CRACK = frozenset(
    (
        *("normal", "negative", "negatives", "nocrack", "nocracks", "noncrack", "noncracks", "noncracked"),
        *("notcracked", "uncracked", "crackfree", "withoutcrack", "withoutcracks", "intact", "sound"),
        *("clean", "undamaged", "nodamage", "nodefect", "nodefects", "healthy", "good", "background"),
        *("none", "ud", "up", "uw"),
    )
)


class ClassFolder(LabelledDataset):
    """Layout: `CLASS/*.jpg`, a folder a class, two classes at least.

    `order` names the folders from the lowest class to the highest; without it they are in alphabetical order,
    after a folder whose name says "no crack" (`normal`, `Negative`, `no_crack`, ...). Exact and near
    duplicates are one group. Split: none is official; whole groups are drawn by seed, class by class.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="A folder a class (image labels, no masks), such as METU's or SDNET2018's",
        licence="the publisher's",
        citation="",
        obtain="METU: https://data.mendeley.com/datasets/5y9wdsg2zt/2 ; SDNET2018: "
        "https://digitalcommons.usu.edu/all_datasets/48",
        layout="CLASS/NAME.jpg, a folder a class; PNG, TIFF, BMP, GIF and WebP will do too",
        counts={},
    )
    kind: Literal["class_folder"] = "class_folder"
    root: Path
    order: tuple[str, ...] = ()

    @property
    def label_text(self) -> str:
        return f"{self.kind}:{self.root}{options_text(self)}"

    def resolved(self) -> Self:
        return self.model_copy(update={"root": self.root.expanduser().resolve()})

    def classes(self) -> tuple[str, ...]:
        listing = self.files()
        if listing.problems:
            raise DataError(*listing.problems)
        return listing.classes

    def files(self) -> Listing:
        """`find` without opening files: every image is its own group, in "train"."""
        walk = Walk(self.root, self.info.layout)
        folders = self.root.iterdir() if self.root.is_dir() else ()
        names = [path.name for path in folders if path.is_dir() and not is_passed_over(path.name)]
        walk.watch(".")
        classes = self._ordered(names, walk.problems)
        images = [
            LabelledImage(name := f"{folder}-{stem}", label, name, "train", path)
            for label, folder in enumerate(classes)
            for stem, path in walk.files(folder).items()
        ]
        present = sorted({classes[image.label] for image in images})
        if not self.root.is_dir():
            walk.problems.append(walk.missing())
        elif len(present) < 2:
            walk.problems.append(
                f"{self.root}: a class-folder set has at least two folders with images: this one has "
                f"{len(present)} ({', '.join(present) or 'none'}); expected {walk.layout}"
            )
        walk.problems += [
            f"{self.root}: folder and stem name one image: `{name}` is {count} of them; rename a folder"
            for name, count in Counter(image.name for image in images).items()
            if count > 1
        ]
        ordered = sorted(images, key=lambda image: (image.name, image.label))
        return Listing(classes, tuple(ordered), tuple(walk.problems), (*walk.notes, *walk.left_out()))

    def find(self, *, directory: Path | None = None) -> Listing:
        listing = self.files()
        if listing.problems:
            return listing
        try:
            leader = alike([image.path for image in listing.images], directory=directory)
        except DataError as error:
            return replace(listing, problems=error.problems)
        names = {image.path: image.name for image in listing.images}
        grouped = [replace(image, group=names[leader[image.path]]) for image in listing.images]
        images, problems = self._divide(grouped, listing.classes)
        return replace(listing, images=tuple(images), problems=tuple(problems))

    def _ordered(self, folders: list[str], problems: list[str]) -> tuple[str, ...]:
        if not self.order:
            return tuple(sorted(folders, key=_rank))
        if sorted(self.order) != sorted(folders):
            problems.append(
                f"{self.root}: `order` names each folder once: it names {', '.join(self.order)}, and there "
                f"are {', '.join(sorted(folders)) or 'none'}; mend it or leave it out"
            )
            return tuple(sorted(folders))
        return self.order

    def _divide(
        self, images: Sequence[LabelledImage], classes: tuple[str, ...]
    ) -> tuple[list[LabelledImage], list[str]]:
        """The images with their splits, and a problem for each class too small for two splits. A group with
        images of several classes counts as its first image's class.
        """
        label_of: dict[str, int] = {}
        for image in images:
            label_of.setdefault(image.group, image.label)
        drawn: set[str] = set()
        groups: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for image in images:
            groups[label_of[image.group]][image.name] = image.group
        for label, members in groups.items():
            count = round(self.test_share * len(members))
            drawn |= draw(members, count=count, seed=self.seed, purpose=f"test/{classes[label]}")
        problems = [
            f"{self.root / name}: a class has two images that are not the same, one to train on and one to "
            f"test with: there is one in {sum(image.label == label for image in images)}; add images"
            for label, name in enumerate(classes)
            if len(set(groups[label].values())) < 2
        ]
        return [replace(image, split="test") if image.name in drawn else image for image in images], problems


def _rank(folder: str) -> tuple[bool, str, str]:
    return (re.sub(r"[\s_-]", "", folder).casefold() not in NO_CRACK, folder.casefold(), folder)
