"""The interface between the HTTP application and what hosts the models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from fissura.core.spec import Spec
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import ImageQuery
from fissura.serving.worker import Reply

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class Hosted(Spec):
    """A served model: its version, the previous one (restored by a rollback), and its card."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    previous: int | None = Field(None, ge=1)
    card: dict[str, Any]

    @property
    def task(self) -> str:
        """Segmentation or classification."""
        return str(self.card["task"])


class ReplicaCount(NamedTuple):
    """Replicas of one application: how many are healthy, and how many are wanted."""

    healthy: int
    wanted: int


class Models(NamedTuple):
    """All hosted models by name, and the name of the default."""

    default: str
    hosted: Mapping[str, Hosted]

    def named(self, name: str | None, *, task: str | None = None) -> Hosted:
        """The model of this name; without a name the default, or the first of the `task`.

        Raises:
            Refused: there is none, or its task is another.
        """
        chosen = self.hosted.get(name or self.default)
        if name is None and (chosen is None or task not in (None, chosen.task)):
            chosen = next((model for model in self.hosted.values() if task in (None, model.task)), None)
        if chosen is None or task not in (None, chosen.task):
            known = ", ".join(f"{model.name} ({model.task})" for model in self.hosted.values()) or "none"
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
    """Holds models and runs them: Ray Serve, or a single process."""

    def models(self) -> Models:
        """The models that are hosted now."""
        ...

    def replicas(self) -> Mapping[str, ReplicaCount]:
        """The replicas of each application: each version of a model, and the HTTP process."""
        ...

    async def answer(self, model: Hosted, photograph: bytes, query: ImageQuery, *, seconds: float) -> Reply:
        """The model's reply for one image; times out after `seconds`. When cancelled, it returns once the
        image is no longer worked on.

        Raises:
            Refused: no replica could answer (`not-ready`, `failed`).
        """
        ...

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        """Loads a run, which replaces the model of this name once it is ready.

        Raises:
            Refused: the run cannot be served; the model of this name stays.
        """
        ...

    async def roll_back(self, name: str) -> Hosted:
        """Restores the previous version.

        Raises:
            Refused: there is none.
        """
        ...
