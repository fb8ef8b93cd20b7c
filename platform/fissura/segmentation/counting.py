"""The images of a split, each predicted once and counted under every protocol."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fissura.core.errors import DataChanged, DataError
from fissura.core.files import replacing
from fissura.data.content import missing_folders, sources
from fissura.data.dataset import Dataset
from fissura.data.sample import Split
from fissura.metrics import AnyProtocol
from fissura.metrics.counts import Counts, crack_pixels
from fissura.metrics.false_alarms import FalseAlarm, false_alarm
from fissura.metrics.scores import level_of
from fissura.metrics.stretch import stretched
from fissura.records.store import prediction_path
from fissura.segmentation.predict import Predictor, to_bytes
from fissura.segmentation.recipe import MapRange

Progress = Callable[[int, int], None]
Judged = tuple[AnyProtocol, MapRange]
"""A protocol and the range of the maps that it scores."""


@dataclass(frozen=True)
class CountedImage:
    """One image: its size, its valid crack pixels, its counts under each protocol and, where it holds no
    crack, its false alarms at each threshold."""

    dataset: str
    data_name: str
    name: str
    height: int
    width: int
    crack_pixels: int
    counts: tuple[Counts, ...]
    alarms: tuple[FalseAlarm, ...]


def count_images(
    predictor: Predictor,
    datasets: Sequence[Dataset],
    judged: Sequence[Judged],
    thresholds: Sequence[float],
    *,
    split: Split,
    keep: Path | None,
    content: str,
    on_image: Progress | None,
) -> Iterator[CountedImage]:
    """Predicts and counts the images of a split one by one; writes the maps below the run `keep`, if given.

    Raises:
        DataError: no images in the split, or bad ones: all are named, after the good ones.
        DataChanged: data were removed meanwhile.
    """
    work = [source for source in sources(datasets) if source.sample.split == split]
    if not work:
        roots = ", ".join(str(dataset.root) for dataset in datasets)
        raise DataError(f"{roots}: no {split} images; name another --split, or a data set that has them")
    problems: list[str] = []
    with ThreadPoolExecutor(1) as reader:
        # one image is read ahead while another is predicted
        unread = iter(work)
        ahead = reader.submit(next(unread).read)
        for number, source in enumerate(work, start=1):
            reading = ahead
            following = next(unread, None)
            if following is not None:
                ahead = reader.submit(following.read)
            try:
                image, mask, valid = reading.result()
            except DataError as error:
                problems += error.problems
                continue
            unrounded = predictor.probability(image)
            probability = to_bytes(unrounded)
            if keep is not None:
                path = prediction_path(
                    keep, dataset=source.label, data_digest=content, split=split, image=source.sample.name
                )
                with replacing(path) as scratch:
                    Image.fromarray(probability).save(scratch, format="PNG")
            stretches = any(maps == "min_max" for _, maps in judged)
            wide = to_bytes(stretched(unrounded)) if stretches else probability
            counts = tuple(
                protocol.count(wide if maps == "min_max" else probability, mask, valid)
                for protocol, maps in judged
            )
            height, width = mask.shape
            cracked = crack_pixels(mask, valid)
            # none where the thresholds are still to be chosen
            alarms = tuple(
                false_alarm(wide if maps == "min_max" else probability, valid, level=level_of(threshold))
                for (_, maps), threshold in zip(judged, thresholds, strict=False)
                if not cracked
            )
            named = source.label, source.data_name, source.sample.name
            yield CountedImage(*named, height, width, cracked, counts, alarms)
            if on_image is not None:
                on_image(number, len(work))
    if problems:
        raise DataChanged(*lost) if (lost := missing_folders(datasets)) else DataError(*problems)
