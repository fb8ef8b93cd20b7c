"""A job scores by a model of its own service, among the requests that come in."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from fissura.batches.pictures import draw_from
from fissura.batches.scorer import Busy, Failing, Result, Scored, Unreachable, Unscorable
from fissura.core.errors import DataError, FissuraError
from fissura.serving.answering import Answering
from fissura.serving.body import Upload
from fissura.serving.hosting import Hosted
from fissura.serving.job_files import Work
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import Asked


@dataclass(frozen=True)
class HostScorer:
    """Scores by a model of this service, among the requests that come in."""

    answering: Answering
    model: Hosted
    work: Work

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result for the bytes of an image file, and its pictures."""
        # one that has no maps was refused pictures and a scale before
        form: Literal["probability", "json"] = "probability" if self.work.pictures else "json"
        asked = Asked(form=form, mm_per_pixel=self.work.mm_per_pixel)
        try:
            [reply] = await self.answering.replies(self.model, [Upload(name, photograph)], asked)
        except Refused as refused:
            raise _as_outcome(refused.problem) from None
        if reply.problem is not None:
            raise _as_outcome(reply.problem)
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
                threshold=result.threshold or 0.0,
                kinds=self.work.pictures,
            )
        except DataError as error:
            raise Unscorable(str(error)) from None
        return Scored(result, pictures)


def _as_outcome(problem: Problem) -> FissuraError:
    text = f"{problem.title}: {problem.detail}; {problem.remedy}"
    if problem.kind == "too-many-waiting":
        return Busy(text, seconds=float(problem.retry_after or 1))
    if problem.kind == "not-ready":
        return Unreachable(text)
    if problem.kind in ("failed", "too-slow"):
        return Failing(text)
    return Unscorable(text)
