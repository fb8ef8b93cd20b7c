"""What hosts the models, as the HTTP application sees it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from fissura.core.spec import Spec
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import Asked
from fissura.serving.worker import Reply, Worker

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class Hosted(Spec):
    """A model as it is served: its version, the one before it that a rollback brings back, and its card."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    previous: int | None = Field(None, ge=1)
    card: dict[str, Any]

    @property
    def task(self) -> str:
        """Segmentation or classification."""
        return str(self.card["task"])


class ReplicaCount(NamedTuple):
    """Replicas of one application: those that are healthy, and those that there should be."""

    healthy: int
    wanted: int


class Models(NamedTuple):
    """All that is hosted, by name, and the name of the default."""

    default: str
    hosted: Mapping[str, Hosted]

    def named(self, name: str | None, *, task: str | None = None) -> Hosted:
        """The model of this name; where there is none given the default, or the first of the `task`.

        Raises:
            Refused: there is none, or it does another task.
        """
        chosen = self.hosted.get(name or self.default)
        if name is None and (chosen is None or task not in (None, chosen.task)):
            chosen = next((one for one in self.hosted.values() if task in (None, one.task)), None)
        if chosen is None or task not in (None, chosen.task):
            known = ", ".join(f"{one.name} ({one.task})" for one in self.hosted.values()) or "none"
            raise Refused(
                Problem(
                    "not-found",
                    f"a model for {task or 'images'} is hosted under the name that a request gives",
                    f"there is no {name!r} for it" if name else "none is",
                    f"name one of those that are hosted: {known}",
                )
            )
        return chosen


class Host(Protocol):
    """Keeps models, and lets them answer. Ray Serve is one, and a process of one's own another."""

    def models(self) -> Models:
        """What is hosted now."""
        ...

    def replicas(self) -> Mapping[str, ReplicaCount]:
        """The replicas of each application: of each version of a model, and of the process that answers
        HTTP."""
        ...

    async def answer(self, model: Hosted, photograph: bytes, asked: Asked, *, seconds: float) -> Reply:
        """The model's reply for one image, which is given up after `seconds`. Where its caller is cancelled
        it ends when the image is worked on no longer.

        Raises:
            Refused: nobody could answer (`not-ready`, `failed`).
        """
        ...

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        """Loads a run beside the model of this name, and lets it take the model's place when it answers.

        Raises:
            Refused: it is no run that can be served; the model of this name stays.
        """
        ...

    async def roll_back(self, name: str) -> Hosted:
        """Brings the version before back.

        Raises:
            Refused: there is none.
        """
        ...


class OneModel:
    """A host in this process, of one model that stays: what the application can be tried with."""

    def __init__(self, worker: Worker, *, name: str = "default") -> None:
        self._worker = worker
        self._models = Models(name, {name: Hosted(name=name, version=1, card=worker.model.card)})

    def models(self) -> Models:
        """The one model."""
        return self._models

    def replicas(self) -> Mapping[str, ReplicaCount]:
        """None: it answers in the process that is asked."""
        return {}

    async def answer(self, model: Hosted, photograph: bytes, asked: Asked, *, seconds: float) -> Reply:
        """The model's reply for one image."""
        return await self._worker.answer(photograph, asked, seconds=seconds)

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        """Refused: nothing is exchanged here."""
        raise _fixed()

    async def roll_back(self, name: str) -> Hosted:
        """Refused: nothing is exchanged here."""
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
