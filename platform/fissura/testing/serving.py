"""A host of one fixed model in this process, to try the service's application with."""

from collections.abc import Mapping
from pathlib import Path

from fissura.serving.hosting import Hosted, Models, ReplicaCount
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import ImageQuery
from fissura.serving.worker import Reply, Worker


class OneModel:
    """A host of one fixed model in this process, to try the application with."""

    def __init__(self, worker: Worker, *, name: str = "default") -> None:
        self._worker = worker
        self._models = Models(name, {name: Hosted(name=name, version=1, card=worker.model.card)})

    def models(self) -> Models:
        """The one model."""
        return self._models

    def replicas(self) -> Mapping[str, ReplicaCount]:
        """None: the model runs in this process."""
        return {}

    async def answer(self, model: Hosted, photograph: bytes, query: ImageQuery, *, seconds: float) -> Reply:
        """The model's reply for one image."""
        return await self._worker.answer(photograph, query, seconds=seconds)

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        """Refused: the model is fixed."""
        raise _fixed()

    async def roll_back(self, name: str) -> Hosted:
        """Refused: the model is fixed."""
        raise _fixed()


def _fixed() -> Refused:
    return Refused(
        Problem(
            "conflict",
            "models are exchanged in a service that Ray Serve hosts",
            "this one hosts a single model that stays",
            "start it with `fissura serve`",
        )
    )
