"""The service's route `classify`: the class of an image."""

from typing import Any, Literal

from fissura.deploy.model import Classified
from fissura.serving.query import ImageQuery
from fissura.serving.schema import ResultHead
from fissura.serving.task_service import TaskService


class ClassificationResult(ResultHead):
    """The class of one image."""

    task: Literal["classification"]
    label: str
    decisions: list[float]


class ClassificationService(TaskService):
    """See `TaskService`."""

    asks = "Names the class of an image, or of each image of a multipart batch."
    answers = "The class of one image, or of each image of a batch."
    document = ClassificationResult

    def result(self, answer: Classified, query: ImageQuery) -> dict[str, Any]:
        """See `TaskService`."""
        return {"label": answer.label, "decisions": list(answer.decisions)}


CLASSIFICATION_SERVICE: TaskService = ClassificationService()
