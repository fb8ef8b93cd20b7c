"""Runs as the store keeps them, of small random cracks scored by the real protocols."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fissura.core.seeding import derive
from fissura.core.spec import digest
from fissura.metrics import level_of, parse_protocol
from fissura.metrics.false_alarms import false_alarm
from fissura.records.manifest import DataFacts, Manifest
from fissura.records.store import Row, prediction_path, write_run

DIGEST = "d" * 16
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEIGHT, WIDTH = 24, 32


def picture(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image and its mask {0, 1}, the same for every call with one name; a "sound" one has no crack."""
    random = np.random.default_rng(derive(0, name))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if not name.startswith("sound"):
        mask[int(random.integers(4, 18)) :][:3] = 1
    image = random.integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image[mask == 1] //= 3
    return image, mask


def write(
    directory: Path,
    *,
    lr: float = 0.1,
    seed: int = 0,
    recipe: str = "unet",
    quality: float = 0.9,
    images: Sequence[str] = ("001", "002", "003", "004", "005", "006"),
    protocols: Sequence[str] = ("pixel",),
    dataset: str = "cfd",
    split: str = "test",
    source: Any = "validation",
    threshold: float = 0.5,
    finished: datetime = NOON,
) -> Path:
    """Writes the run of one configuration, right in a share `quality` of the pixels; gives its directory."""
    plain = {"name": recipe, "seed": seed, "model": {"kind": "unet"}, "phases": [{"name": "train", "lr": lr}]}
    configuration = digest({key: value for key, value in plain.items() if key != "seed"})
    run_id = directory.name
    rows = []
    for name in images:
        mask = picture(name)[1]
        random = np.random.default_rng(derive(seed, name, str(quality)))
        right = random.random(mask.shape) < quality
        grey = np.where((mask == 1) == right, 200, 50) + random.integers(-40, 40, mask.shape)
        probability = grey.astype(np.uint8)
        place = prediction_path(directory, dataset=dataset, data_digest=DIGEST, split=split, image=name)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(probability).save(place)
        for protocol in map(parse_protocol, protocols):
            counts, level = protocol.count(probability, mask), level_of(threshold)
            scores = protocol.score(counts, level)
            alarm = None if mask.any() else false_alarm(probability, level=level)
            curves = {f"curve_{key}": value.astype(np.int32) for key, value in vars(counts).items()}
            rows.append(
                Row(
                    run_id=run_id,
                    recipe=recipe,
                    configuration=configuration,
                    seed=seed,
                    dataset=dataset,
                    data_digest=DIGEST,
                    split=split,
                    protocol=str(protocol),
                    threshold=threshold,
                    threshold_source=source,
                    image=name,
                    height=HEIGHT,
                    width=WIDTH,
                    **{key: int(value[level]) for key, value in vars(counts).items()},
                    precision=scores.precision,
                    recall=scores.recall,
                    f1=scores.f1,
                    dice=scores.dice,
                    iou=scores.iou,
                    crack_pixels=int(mask.sum()),
                    alarm_components=alarm and alarm.components,
                    alarm_area=alarm and alarm.area,
                    **(curves if protocol.swept else {}),
                )
            )
    manifest = Manifest.collect(
        run_id=run_id,
        recipe=plain,
        seed=seed,
        data=DataFacts(digest="d" * 16, datasets=({"kind": dataset},)),
        accelerator="cpu",
        cpus=2,
        started=finished - timedelta(seconds=90 + seed),
        finished=finished,
        parameters=31_000_000,
        best_epoch=3,
        epochs=5,
        energy_joules=None,
    )
    write_run(directory, rows, manifest)
    return directory


@pytest.fixture(scope="session")
def write_scored_run() -> Callable[..., Path]:
    """`write`: a run directory of the real writer, with its probability maps."""
    return write


@pytest.fixture(scope="session")
def load_picture() -> Callable[[str, str], tuple[np.ndarray, np.ndarray]]:
    """(data set, name) -> (image, mask)."""
    return lambda dataset, name: picture(name)
