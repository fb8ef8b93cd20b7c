"""The gallery of a table: its best configurations on the leader's worst, median and best image."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from fissura.core import text
from fissura.core.errors import UserError
from fissura.metrics.stretch import stretched
from fissura.records.store import prediction_path
from fissura.reports.html import part
from fissura.reports.pictures import Load, data_url, overlay, read_prediction
from fissura.reports.standings import Standing, Table

MAX_BYTES = 3_000_000  # of all the pictures of a page
WIDTH = 480  # pixels of one picture
CONFIGURATIONS = 3


class Budget:
    """The bytes of pictures that a page may still hold."""

    def __init__(self, size: int = MAX_BYTES) -> None:
        self._left = size

    def kept(self, pictures: Iterable[Markup]) -> Iterator[Markup]:
        """The pictures while there is room for them, then a line that says why there are no more."""
        for picture in pictures:
            if len(picture) > self._left:
                yield part("absent", "The other pictures are left out to keep this file small.")
                return
            self._left -= len(picture)
            yield picture


def gallery(table: Table, *, load: Load, budget: Budget) -> Markup:
    """Image, mask, prediction and overlay for a few images, worst first; what cannot be shown says why."""
    shown = [standing for standing in table.standings if standing.rank is not None][:CONFIGURATIONS]
    if not shown:
        return part("absent", "No pictures: no configuration scored every image.")
    chosen = extremes(shown[0].image_f1, bare=table.crack_free)
    cases = (_case(table, shown, label=label, name=name, load=load) for label, name in chosen)
    return Markup().join([part("legend"), *budget.kept(cases)])


def extremes(scores: Mapping[str, float], *, bare: Collection[str] = ()) -> list[tuple[str, str]]:
    """Worst, median and best image by its score, with that word; fewer where there are fewer images.

    An image without a crack (`bare`) scores 1 or 0. One that scores 1 has nothing to show, so it counts only
    where there is no other.
    """
    shown = [name for name in scores if name not in bare or scores[name] < 1] or list(scores)
    order = sorted(shown, key=lambda name: (scores[name], name))
    positions = {"Worst": 0, "Median": (len(order) - 1) // 2, "Best": len(order) - 1}
    chosen: dict[str, str] = {}
    for label, position in positions.items():
        chosen.setdefault(order[position], label)
    return [(label, name) for name, label in chosen.items()]


def _case(table: Table, shown: Sequence[Standing], *, label: str, name: str, load: Load) -> Markup:
    condition = table.condition
    title = f"{label} image of the leader: {name}"
    try:
        image, mask = load(condition.dataset, name)
    except (OSError, UserError, LookupError) as error:
        return part("gallery", title, []) + part("absent", f"The image could not be read: {error}")
    figures = [
        part("figure", data_url(image, kind="jpeg", width=WIDTH), "Image"),
        part("figure", data_url(mask * 255, kind="png", width=WIDTH), "Mask"),
    ]
    for standing in shown:
        try:
            # A name from a foreign file must not lead out of the run's directory.
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a file name")
            run, threshold = standing.directories[0], standing.thresholds[0]
            map_path = prediction_path(
                run,
                dataset=condition.dataset,
                data_digest=condition.data_digest,
                split=condition.split,
                image=name,
            )
            prediction = _as_scored(read_prediction(map_path), standing, condition.protocol)
            if not image.shape[:2] == mask.shape == prediction.shape:
                raise ValueError(f"{map_path}: its size is not the image's")
        except FileNotFoundError:
            figures.append(part("absent", f"{who(standing)} kept no probability map of this image."))
            continue
        except (OSError, ValueError) as error:
            figures.append(part("absent", str(error)))
            continue
        drawn = overlay(image, mask, prediction, threshold=threshold)
        scored = f"{who(standing)}: {_scored(standing.image_f1[name], cracked=name not in table.crack_free)}"
        figures.append(
            part("figure", data_url(prediction, kind="jpeg", width=WIDTH), f"{who(standing)}: prediction")
        )
        figures.append(part("figure", data_url(drawn, kind="jpeg", width=WIDTH), scored))
    return part("gallery", title, figures)


def _as_scored(
    prediction: UInt8[np.ndarray, "h w"], standing: Standing, protocol: str
) -> UInt8[np.ndarray, "h w"]:
    """The map that the protocol was applied to: a recipe may stretch it for its own (`Recipe.maps_under`)."""
    recipe = standing.manifests[0].recipe
    match recipe.get("protocols"):
        case [{"kind": own}, *_] if recipe.get("map_range") == "min_max" and protocol.split(":")[0] == own:
            wide = stretched(np.asarray(prediction / 255, dtype=np.float32))
            return np.asarray(np.rint(wide * 255), dtype=np.uint8)
    return prediction


def _scored(f1: float, *, cracked: bool) -> str:
    # without a crack an image's F1 is 1 or 0, as there is no false alarm or one
    if cracked:
        return f"F1 {text.share(f1)}"
    return f"no crack, {'no' if f1 == 1 else 'with'} false alarm"


def who(standing: Standing) -> str:
    """The configuration in a few words: its rank and recipe."""
    return f"#{standing.rank} {standing.recipe}"
