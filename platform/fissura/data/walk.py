"""Walks a data set's folders: lists files by stem, pairs images with masks, and collects every problem."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fissura.core.files import near
from fissura.core.text import count
from fissura.data.file_kinds import (
    HEIF_SUFFIXES,
    SUFFIXES,
    is_image,
    is_passed_over,
    is_photograph,
    left_out_line,
)
from fissura.data.sample import Sample, Split


@dataclass(frozen=True)
class Found:
    """The content of a data set's folders: the samples, sorted by name; the layout's problems; remarks."""

    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Walk:
    """Gathers the samples of one data set. Nothing raises: `found` returns all problems at once.

    `read` are the folders whose files were listed; a note names images beside or below them, or in the
    folders `watched`.
    """

    root: Path
    layout: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: list[Path] = field(default_factory=list)
    watched: list[Path] = field(default_factory=list)

    def has(self, folder: str) -> bool:
        """Whether `folder` (relative to the root) exists."""
        return (self.root / folder).is_dir()

    def folders(self, folder: str) -> dict[str, str]:
        """The names of the folders in `folder` (relative to the root), by their lower-case names."""
        return {
            path.name.lower(): path.name for path in sorted(_visible(self.root / folder)) if path.is_dir()
        }

    def files(
        self,
        *folders: str,
        key: Callable[[str], str] = str,
        suffixes: frozenset[str] | None = None,
        others: Literal["note", "ignore"] = "note",
    ) -> dict[str, Path]:
        """The files of the first of `folders` (relative to the root) that exists, by `key` of their stems.

        Stems are in composed Unicode, so that names match wherever the files come from. Skips hidden files
        and an operating system's, and files without an image's suffix (or one of `suffixes`), the latter with
        a note unless `others` is "ignore". A missing folder, an empty one, a link to nothing and two
        files of one stem are problems.
        """
        folder = next((self.root / name for name in folders if self.has(name)), None)
        if folder is None:
            if self.root.is_dir():
                self.problems.append(
                    f"{self.root / folders[0]}: the folder is missing{near(self.root / folders[0])}; expected"
                    f" {self.layout}"
                )
            return {}
        self.read.append(folder)
        entries = sorted(_visible(folder))
        visible = [path for path in entries if path.is_file()]
        for path in entries:
            if is_image(path.name) and not (path.is_file() or path.is_dir()):
                kind = "no regular file" if path.exists() else "a link to a file that is not there"
                self.problems.append(f"{path}: is {kind}; mend or remove it")
        known = [
            path
            for path in visible
            if (is_image(path.name) if suffixes is None else path.suffix.lower() in suffixes)
        ]
        # a HEIC beside a JPEG of the same stem is the same photograph
        stems = {path.stem for path in known if path.suffix.lower() not in HEIF_SUFFIXES}
        known = [path for path in known if path.suffix.lower() not in HEIF_SUFFIXES or path.stem not in stems]
        files: dict[str, Path] = {}
        for path in known:
            stem = key(composed(path.stem))
            if stem in files:
                self.problems.append(
                    f"{path}: a stem occurs once in a folder: {files[stem].name} has it too; remove or "
                    f"rename one"
                )
            files.setdefault(stem, path)
        used = {path.name for path in known}
        unread = tuple(path.name for path in visible if path.name not in used)
        if not files:
            self.problems.append(
                f"{folder}: the folder holds files of {', '.join(sorted(suffixes or SUFFIXES))}: there is"
                f" none{f' ({left_out_line(unread)})' if unread else ''}; expected {self.layout}"
            )
        elif unread and others == "note":
            self.notes.append(f"{folder}: {left_out_line(unread)}")
        return files

    def watch(self, *folders: str) -> None:
        """Watches `folders` (relative to the root): a note names images in them and below that are not
        read."""
        self.watched += [self.root / folder for folder in folders if self.has(folder)]

    def left_out(self) -> list[str]:
        """A note for each folder with images that were not read."""
        notes = []
        known = [*self.watched, *self.read]
        for folder in dict.fromkeys(known):
            inside = sorted(_visible(folder))
            loose = [path.name for path in inside if path.is_file() and is_photograph(path.name)]
            if loose and folder not in self.read:
                notes.append(
                    f"{folder}: images left out, beside the folders that are read ({len(loose)}): "
                    f"{listed(loose)}"
                )
            strange = [
                path
                for path in inside
                if path.is_dir() and not any(other.is_relative_to(path) for other in known)
            ]
            counts = {
                path.name: sum(is_photograph(str(image.relative_to(path))) for image in path.rglob("*"))
                for path in strange
            }
            full = [f"{name} ({count(images, 'image')})" for name, images in counts.items() if images]
            if full:
                notes.append(
                    f"{folder}: folders left out ({len(full)}): {listed(full)}; expected {self.layout}"
                )
        return notes

    def pair(
        self,
        split: Split,
        *,
        images: Mapping[str, Path],
        masks: Mapping[str, Path],
        valid: Mapping[str, Path] | None = None,
        group: Callable[[str], str] | None = None,
        bare: Literal["problem", "note"] = "problem",
    ) -> None:
        """Adds the images and masks of equal keys as samples of `split`.

        `group` gives a key's group, by default the sample alone; `bare` says what an image without a mask is.
        """
        if not images or not masks:
            return  # `files` has reported the missing or empty folder: its partners need no line each
        if affix := common_affix(images, masks):
            which, text = affix
            self.problems.append(
                f"{next(iter(masks.values())).parent}: a mask has the stem of its image:"
                f" {affix_text(affix)} ({len(masks)} masks, {len(images)} images); rename them, or for"
                f" your own folder name the {which}: `folder:{self.root}?{which}={text}`"
            )
            return
        for stem, image in sorted(images.items()):
            if stem not in masks and bare == "problem":
                self.problems.append(
                    f"{image}: an image has a mask of its stem: there is none; add it or remove the image"
                )
            elif valid is not None and stem not in valid:
                self.problems.append(
                    f"{image}: an image has a mask of valid pixels here: there is none; add it"
                )
            elif stem in masks:
                extra = None if valid is None else valid[stem]
                self.samples.append(
                    Sample(stem, split, group(stem) if group else "", image, masks[stem], extra)
                )
        for stem, mask in sorted(masks.items()):
            if stem not in images:
                self.problems.append(
                    f"{mask}: a mask has an image of its stem: there is none; add it or remove the mask"
                )
        without = [stem for stem in images if stem not in masks]
        if without and bare == "note":
            self.notes.append(
                f"images without a mask, left out ({len(without)} of {len(images)}): {listed(without)}"
            )

    def missing(self) -> str:
        """The problem that the root is missing, with its nearest neighbour and the expected layout."""
        return f"{self.root}: the data set's folder is missing{near(self.root)}; expected {self.layout}"

    def found(self) -> Found:
        """All that was gathered. If a key occurs in two splits, names begin with their split: "train-01"."""
        if not self.root.is_dir():
            self.problems.append(self.missing())
        elif not any(self.root.iterdir()):
            self.problems = [f"{self.root}: the data set's folder is empty; expected {self.layout}"]
        elif not self.samples and not self.problems:
            self.problems.append(
                f"{self.root}: a data set holds pairs: there is none; expected {self.layout}"
            )
        samples = self.samples
        if len({sample.name for sample in samples}) < len(samples):
            samples = [replace(sample, name=f"{sample.split}-{sample.name}") for sample in samples]
        samples = [sample if sample.group else replace(sample, group=sample.name) for sample in samples]
        samples = sorted(samples, key=lambda sample: sample.name)
        return Found(tuple(samples), tuple(self.problems), (*self.notes, *self.left_out()))


Affix = tuple[Literal["prefix", "suffix"], str]


def common_affix(images: Iterable[str], masks: Iterable[str]) -> Affix | None:
    """The prefix or suffix that most unpaired masks add to the stem of an unpaired image; None if there is
    none.
    """
    bare, spare, paired = {*images} - {*masks}, {*masks} - {*images}, {*masks} & {*images}
    counts = Counter[Affix]()
    for mask in spare:
        for cut in range(1, len(mask)):
            if mask[:cut] in bare and not mask[cut].isdigit():
                counts["suffix", mask[cut:]] += 1
            if mask[cut:] in bare and not mask[cut - 1].isdigit():
                counts["prefix", mask[:cut]] += 1
    affix, count = max(counts.items(), key=lambda item: (item[1], len(item[0][1])), default=(None, 0))
    return affix if count > max(len(bare) / 2, len(spare) / 2, len(paired)) else None


def affix_text(affix: Affix) -> str:
    """The affix of masks, in a few words."""
    which, text = affix
    return f"here the masks {'begin with' if which == 'prefix' else 'end in'} `{text}` besides"


def composed(name: str) -> str:
    """A name in composed Unicode (NFC): some file systems store an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_passed_over(path.name)] if folder.is_dir() else []


def listed(names: list[str], *, most: int = 10) -> str:
    """At most `most` of `names`, then how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
