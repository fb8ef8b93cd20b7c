"""Classifies the images of a folder with onnxruntime, NumPy and Pillow: `python classify.py FOLDER`.

Standard output has one line an image: JSON, or CSV with a head. `score` says how clearly the class won. With
two classes it is the classifier's decision value: the second class is named from 0 on. With more, it is the
smallest decision value for the class that is named against any other. A file that cannot be read is named in
its line, with `error`, and never stops the others. The exit code is 0 when all images were classified, 1 when
some were not, and 2 when the bundle or what was asked for is wrong.
"""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from card import FOLDER, BundleError, Network, read_card, require_numbers
from compact import Compact, CompactError
from images import Unreadable, image_files, read_all

BATCH = 16
HEAD = ("name", "class", "score", "error")
Read = tuple[str, "np.ndarray | Unreadable"]


class ExportedClassifier:
    """The backbone and the classifier on its features."""

    def __init__(self, model: str, *, threads: int) -> None:
        self._card = card = read_card("classification", needs=[model, "classifier.npz"])
        self.classes: list[str] = card["classes"]
        self.backbone = Network(FOLDER / model, threads=threads)
        try:
            self.compact = Compact.load(FOLDER / "classifier.npz")
        except CompactError as error:
            raise BundleError(str(error)) from None
        self._place = {label: place for place, label in enumerate(self.compact.labels)}
        self._pairs = list(itertools.combinations(range(len(self.classes)), 2))

    def __call__(self, images: np.ndarray) -> list[tuple[str, float]]:
        """(class, score) of images uint8 [b h w 3]."""
        features = self.backbone(images)
        require_numbers(features, card=self._card)
        places = [self._place[int(label)] for label in self.compact.predict(features)]
        decisions = self.compact.decision(features)
        return [
            (self.classes[place], self._score(place, decision))
            for place, decision in zip(places, decisions, strict=True)
        ]

    def _score(self, place: int, decision: np.ndarray) -> float:
        if len(self._pairs) == 1:
            return float(decision[0])
        signed = [
            value if place == first else -value
            for (first, second), value in zip(self._pairs, decision, strict=True)
            if place in (first, second)
        ]
        return float(min(signed))


def batches(read: Iterable[Read]) -> Iterator[list[Read]]:
    """Neighbours of one size together; what could not be read by itself."""
    waiting: list[Read] = []
    for item in read:
        one = item[1]
        shape = None if isinstance(one, Unreadable) else one.shape
        if waiting and (len(waiting) == BATCH or shape is None or shape != _shape(waiting[0])):
            yield waiting
            waiting = []
        waiting.append(item)
        if shape is None:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _shape(item: Read) -> "tuple[int, ...] | None":
    return None if isinstance(item[1], Unreadable) else item[1].shape


def classified(classifier: ExportedClassifier, batch: list[Read]) -> Iterator[dict[str, Any]]:
    """The line of each image of a batch; where the batch fails, each image is tried alone."""
    pixels = [one for _, one in batch if not isinstance(one, Unreadable)]
    if not pixels:
        for name, error in batch:
            yield {"name": name, "error": str(error)}
        return
    try:
        results = classifier(np.stack(pixels))
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base, and no image stops the others
        if len(batch) == 1:
            yield {"name": batch[0][0], "error": f"not classified ({' '.join(str(error).split())[:200]})"}
            return
        for item in batch:
            yield from classified(classifier, [item])
        return
    for (name, _), (label, score) in zip(batch, results, strict=True):
        yield {"name": name, "class": label, "score": round(score, 6)}


def main(arguments: "list[str] | None" = None) -> int:
    """Runs one command line; gives its exit code."""
    parser = argparse.ArgumentParser(description="Classifies the images of a folder.")
    parser.add_argument("folder", type=Path, help="folder of images; those in folders below it count too")
    parser.add_argument(
        "--format", choices=("json", "csv"), default="json", help="of the lines (default json)"
    )
    parser.add_argument("--model", default="backbone.onnx", help="backbone.onnx or backbone.int8.onnx")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime (default: one a core)")
    asked = parser.parse_args(arguments)
    try:
        classifier = ExportedClassifier(asked.model, threads=asked.threads)
        paths = image_files(asked.folder)
        if not paths:
            raise BundleError(f"{asked.folder}: no folder that holds images")
    except BundleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    table = csv.DictWriter(sys.stdout, HEAD, lineterminator="\n")
    if asked.format == "csv":
        table.writeheader()
    done = 0
    try:
        for batch in batches(read_all(asked.folder, paths)):
            for line in classified(classifier, batch):
                done += "error" not in line
                if asked.format == "csv":
                    table.writerow(line)
                else:
                    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
                sys.stdout.flush()
    except BundleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if done < len(paths):
        sys.stderr.write(f"{len(paths) - done} of {len(paths)} images could not be classified\n")
    return 0 if done == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main())
