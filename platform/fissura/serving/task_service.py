"""A task over HTTP: the part of a `Task` that the service needs."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel

from fissura.data.photograph import Photograph
from fissura.serving.query import ImageQuery, Parameter


class TaskService(ABC):
    """One route of the service. `parameters` are its query parameters beside the model's name; `asks`
    describes a request and `answers` a response; `document` is the result of one image with all fields, and
    `media` are the types of pictures that may replace it."""

    parameters: ClassVar[tuple[Parameter, ...]] = ()
    asks: ClassVar[str]
    answers: ClassVar[str]
    document: ClassVar[type[BaseModel]]
    media: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def result(self, answer: Any, query: ImageQuery) -> dict[str, Any]:
        """An answer in JSON types: the task's own fields of `document`."""

    def picture(self, answer: Any, photograph: Photograph, query: ImageQuery) -> bytes:
        """The picture of an answer, in a form of `query.MEDIA`; only for tasks with pictures."""
        raise NotImplementedError

    def brief(self, result: dict[str, Any]) -> dict[str, Any]:
        """The part of a result that fits the header beside its picture."""
        return result
