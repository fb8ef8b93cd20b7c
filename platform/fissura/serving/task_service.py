"""What a task is asked and answers over HTTP: the part of a `Task` that the service asks for."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel

from fissura.data.photograph import Photograph
from fissura.serving.query import Asked, Parameter


class TaskService(ABC):
    """One address of the service. `parameters` are those of its query beside the model's name, `asks` is
    what its page says of a request, `answers` of a response; `document` is the result of one image, in all
    its fields, and `media` are those of the pictures that may stand in its place."""

    parameters: ClassVar[tuple[Parameter, ...]] = ()
    asks: ClassVar[str]
    answers: ClassVar[str]
    document: ClassVar[type[BaseModel]]
    media: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def result(self, answer: Any, asked: Asked) -> dict[str, Any]:
        """What is told of an answer, in JSON types: the fields of `document` that are the task's own."""

    def picture(self, answer: Any, photograph: Photograph, asked: Asked) -> bytes:
        """The picture of an answer, in one of the forms of `query.MEDIA`; of tasks with pictures."""
        raise NotImplementedError

    def brief(self, result: dict[str, Any]) -> dict[str, Any]:
        """As much of a result as fits a header beside its picture."""
        return result
