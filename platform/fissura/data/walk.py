"""Walking a data set's folders: files by stem, images paired with masks, and every problem met on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fissura.data.images import SUFFIXES
from fissura.data.sample import Sample, Split


@dataclass(frozen=True)
class Found:
    """What lies in a data set's folders: the samples, sorted by name; the layout's problems; remarks that
    are no problems.
    """

    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Walk:
    """Gathers the samples of one data set. Nothing raises: `found` hands over all problems at once."""

    root: Path
    layout: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has(self, folder: str) -> bool:
        """Whether `folder` (relative to the root) exists."""
        return (self.root / folder).is_dir()

    def files(
        self,
        *folders: str,
        key: Callable[[str], str] = str,
        suffixes: frozenset[str] = SUFFIXES,
        others: Literal["note", "ignore"] = "note",
    ) -> dict[str, Path]:
        """The files of the first of `folders` (relative to the root) that exists, by `key` of their stems.

        Hidden files are passed over; files of other suffixes too, with a note unless they are expected there
        (`others`). A missing folder, an empty one and two files of one stem are problems.
        """
        folder = next((self.root / name for name in folders if self.has(name)), None)
        if folder is None:
            if self.root.is_dir():
                self.problems.append(
                    f"{self.root / folders[0]}: the folder is missing; expected {self.layout}"
                )
            return {}
        visible = sorted(
            path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
        )
        files: dict[str, Path] = {}
        for path in visible:
            if path.suffix.lower() not in suffixes:
                continue
            stem = key(path.stem)
            if stem in files:
                self.problems.append(
                    f"{path}: a stem occurs once in a folder: {files[stem].name} has it too; remove or "
                    f"rename one"
                )
            files.setdefault(stem, path)
        if not files:
            self.problems.append(
                f"{folder}: the folder holds files of {', '.join(sorted(suffixes))}: there is none; "
                f"expected {self.layout}"
            )
        strangers = [path.name for path in visible if path.suffix.lower() not in suffixes]
        if strangers and others == "note":
            self.notes.append(f"{folder}: left out by their suffix ({len(strangers)}): {listed(strangers)}")
        return files

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

        `group` gives a key's group, which otherwise is the sample alone; `bare` is what an image without a
        mask is.
        """
        if not images or not masks:
            return  # `files` has named the missing or empty folder, so its partners need no line each
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

    def found(self) -> Found:
        """All that was gathered. Where a key occurs in two splits, every name is led by its split:
        "train-01".
        """
        if not self.root.is_dir():
            self.problems.append(f"{self.root}: the data set's folder is missing; expected {self.layout}")
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
        return Found(tuple(samples), tuple(self.problems), tuple(self.notes))


def listed(names: list[str], *, most: int = 10) -> str:
    """At most `most` of `names`, then how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
