"""The service's route `segment`: the cracks of an image, as measures and as pictures."""

from typing import Any, Literal

import numpy as np

from fissura.batches.pictures import jpeg, overlay, png
from fissura.data.photograph import Photograph
from fissura.deploy.model import Segmented
from fissura.segmentation.crack_measures import MeasuredCrack, measure_map
from fissura.serving.query import ImageQuery
from fissura.serving.schema import ResultHead
from fissura.serving.task_service import TaskService

HEADER_CRACKS = 10  # rows of the table in a header, since proxies accept only a few thousand bytes


class SegmentationResult(ResultHead):
    """What was found in one image. `cracks` measures all of them and says in `cracks` how many there are;
    `crack_table` has the 100 longest, the longest first (10 in the header of a picture)."""

    task: Literal["segmentation"]
    threshold: float
    cracks: dict[str, float | int | None]
    crack_table: list[MeasuredCrack]


class SegmentationService(TaskService):
    """See `TaskService`."""

    parameters = ("answer", "mm_per_pixel", "threshold")
    asks = "Finds the cracks in an image, or in each image of a multipart batch."
    answers = "The cracks of one image, or of each image of a batch."
    document = SegmentationResult
    media = ("image/png", "image/jpeg")

    def result(self, answer: Segmented, query: ImageQuery) -> dict[str, Any]:
        """See `TaskService`."""
        segmented = _at_threshold(answer, query)
        measures = measure_map(
            segmented.probability, threshold=segmented.threshold, mm_per_pixel=query.mm_per_pixel
        )
        return {
            "threshold": segmented.threshold,
            "cracks": measures.plain(),
            "crack_table": measures.table(),
        }

    def picture(self, answer: Segmented, photograph: Photograph, query: ImageQuery) -> bytes:
        """See `TaskService`."""
        segmented = _at_threshold(answer, query)
        if query.form == "overlay":
            return jpeg(overlay(photograph.pixels, segmented.mask))
        return png(
            segmented.probability if query.form == "probability" else segmented.mask.astype(np.uint8) * 255
        )

    def brief(self, result: dict[str, Any]) -> dict[str, Any]:
        """See `TaskService`."""
        return {**result, "crack_table": result["crack_table"][:HEADER_CRACKS]}


def _at_threshold(answer: Segmented, query: ImageQuery) -> Segmented:
    """The answer at the threshold of the query, if it has one."""
    return answer if query.threshold is None else Segmented(answer.probability, query.threshold)


SEGMENTATION_SERVICE: TaskService = SegmentationService()
