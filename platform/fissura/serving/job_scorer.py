"""Scores a job's images by a model of the same service, beside its requests."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from fissura.batches.pictures import draw_from
from fissura.batches.scorer import Busy, Failing, Result, Scored, Unreachable, Unscorable, threshold_of_map
from fissura.core.errors import DataError, FissuraError
from fissura.serving.answering import Answering
from fissura.serving.body import Upload
from fissura.serving.hosting import Hosted
from fissura.serving.job_files import Work
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import ImageQuery


@dataclass(frozen=True)
class HostScorer:
    """Scores by a model of this service, beside its requests."""

    answering: Answering
    model: Hosted
    work: Work

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result of an image file's bytes, and its pictures."""
        # a job whose model has no maps cannot ask for pictures or a scale
        form: Literal["probability", "json"] = "probability" if self.work.pictures else "json"
        query = ImageQuery(form=form, mm_per_pixel=self.work.mm_per_pixel)
        try:
            [reply] = await self.answering.replies(self.model, [Upload(name, photograph)], query)
        except Refused as refused:
            raise _as_error(refused.problem) from None
        if reply.problem is not None:
            raise _as_error(reply.problem)
        result = Result.of(reply.result)
        if result.run != self.model.card["run"]:
            raise FissuraError(
                "one model answers a whole job: another version took its place; bring the former back and"
                " resume, or begin another job"
            )
        if reply.picture is None:
            return Scored(result)
        try:
            pictures = await asyncio.to_thread(
                draw_from,
                photograph,
                reply.picture,
                threshold=threshold_of_map(result.threshold),
                kinds=self.work.pictures,
            )
        except DataError as error:
            raise Unscorable(str(error)) from None
        return Scored(result, pictures)


def _as_error(problem: Problem) -> FissuraError:
    text = f"{problem.title}: {problem.detail}; {problem.remedy}"
    if problem.kind == "too-many-waiting":
        return Busy(text, seconds=float(problem.retry_after or 1))
    if problem.kind == "not-ready":
        return Unreachable(text)
    if problem.kind in ("failed", "too-slow"):
        return Failing(text)
    return Unscorable(text)
