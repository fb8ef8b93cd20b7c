"""A synthetic set on disk: `images/{split}/NNNN.png`, `masks/{split}/NNNN.png` (0 or 255), `truth.json`."""

import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.data.sample import SPLITS, Split
from fissura.data.synthetic.scene import SyntheticImage, SyntheticSpec, draw

GENERATOR = 1  # raised when the same spec draws other pixels


def write(
    spec: SyntheticSpec, directory: Path, *, on_image: Callable[[int, int], None] | None = None
) -> None:
    """Draws the set into `directory`, whole or not at all, unless it holds the same set.

    `truth.json` holds the spec and, for each image, its surface, centrelines, widths and topology. `on_image`
    is called with the number of drawn images and of all.

    Raises:
        DataError: `directory` holds anything but this set.
    """
    head = {"generator": GENERATOR, "spec": spec.plain()}
    names: list[tuple[Split, int]] = [
        (split, index) for split in SPLITS for index in range(spec.count(split))
    ]
    if not names:
        raise DataError("a synthetic set needs at least one image: train, val and test are all 0")
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        _check_same(directory, head, names)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.tmp")
    try:
        truth = []
        for done, (split, index) in enumerate(names, start=1):
            drawn = draw(spec, split=split, index=index)
            _save(aside / f"images/{split}/{index:04d}.png", drawn.image[..., ::-1])
            _save(aside / f"masks/{split}/{index:04d}.png", drawn.mask * 255)
            truth.append({"split": split, "name": f"{index:04d}", **_truth(drawn)})
            if on_image is not None:
                on_image(done, len(names))
        write_json(aside / "truth.json", {**head, "images": truth})
        aside.replace(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _truth(drawn: SyntheticImage) -> dict[str, Any]:
    cracks = [{"strokes": [stroke.plain() for stroke in crack.strokes]} for crack in drawn.cracks]
    return {"surface": drawn.surface, "topology": asdict(drawn.topology), "cracks": cracks}


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _check_same(directory: Path, head: dict[str, Any], names: list[tuple[Split, int]]) -> None:
    remedy = "name an empty or new folder, or remove this one"
    try:
        kept = json.loads((directory / "truth.json").read_text(encoding="utf-8"))
        same = {key: kept[key] for key in head} == head
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{directory}: is not empty and holds no synthetic set; {remedy}") from None
    if not same:
        raise DataError(f"{directory}: holds a synthetic set of another spec or generator; {remedy}")
    missing = [
        path
        for folder in ("images", "masks")
        for split, index in names
        if not (path := directory / folder / split / f"{index:04d}.png").is_file()
    ]
    if missing:
        raise DataError(
            *(f"{path}: is missing from the synthetic set; remove the set, draw it again" for path in missing)
        )
