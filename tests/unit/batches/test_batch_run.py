"""The run of a batch: waiting when told to, trying again where nobody answers, stopping without a loss."""

import asyncio
import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fissura.batches.run import BatchResult, Retry, score_all
from fissura.batches.scorer import Busy, Failing, Result, Scored, Unreachable, Unscorable
from fissura.batches.sink import Question, Sink, open_sink
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError, FissuraError, SpecError

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
QUESTION = Question(source="/walls", run="1a2b3c4d5e6f", task="classification")
Step = Exception | None


class Script:
    """A scorer that does as it is told: for each name the outcome of each attempt, then success."""

    def __init__(self, steps: dict[str, Sequence[Step]] | None = None) -> None:
        self.steps = {name: list(each) for name, each in (steps or {}).items()}
        self.asked: list[str] = []

    async def score(self, name: str, photograph: bytes) -> Scored:
        self.asked.append(name)
        await asyncio.sleep(0)
        step = self.steps[name].pop(0) if self.steps.get(name) else None
        if step is not None:
            raise step
        return Scored(result(photograph))


def result(photograph: bytes) -> Result:
    image = {"height": 1, "width": 1, "sha256": hashlib.sha256(photograph).hexdigest()}
    plain = {"run": "1a2b3c4d5e6f", "task": "classification", "image": image, "seconds": 0.1}
    return Result.of({**plain, "label": "crack", "decisions": [1.0]})


def source(names: Sequence[str] = NAMES, **special: Callable[[], bytes]) -> ImageSource:
    """Images that hold their own names."""
    return ImageSource("/walls", {name: special.get(name[0], name.encode) for name in names})


@contextmanager
def sunk(out: Path, **options: Any) -> Iterator[Sink]:
    with open_sink(out, QUESTION, NAMES, **options) as sink:
        yield sink


class Clock:
    """Waits without time: it remembers how long it would have been."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


def run(
    out: Path,
    scorer: Any,
    *,
    images: ImageSource | None = None,
    clock: Clock | None = None,
    sink_options: dict[str, Any] | None = None,
    **options: Any,
) -> BatchResult:
    with sunk(out, **(sink_options or {})) as sink:
        wait = (clock or Clock()).wait
        return asyncio.run(score_all(images or source(), scorer, sink, wait=wait, **options))


def table(out: Path) -> dict[str, str | None]:
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    return {row["image"]: row["error"] for row in rows}


def test_every_image_is_asked_for_once_and_has_its_own_row(tmp_path: Path) -> None:
    scorer, seen = Script(), list[tuple[int, int]]()
    ended = run(tmp_path, scorer, on_image=lambda done, total: seen.append((done, total)))
    assert ended == BatchResult(5, 5, 0, None, tmp_path / "results.parquet")
    assert sorted(scorer.asked) == NAMES
    assert seen == [(done, 5) for done in range(1, 6)]
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert {row["image"]: row["sha256"] for row in rows} == {
        name: hashlib.sha256(name.encode()).hexdigest() for name in NAMES
    }


@pytest.mark.parametrize("concurrency", [1, 3, 20])
def test_as_many_images_as_asked_for_are_under_way_and_no_more(tmp_path: Path, concurrency: int) -> None:
    wanted = min(concurrency, 5)

    class Gathering(Script):
        """Answers nobody until so many have asked."""

        under_way = most = 0

        async def score(self, name: str, photograph: bytes) -> Scored:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            while self.most < wanted:
                await asyncio.sleep(0)
            self.under_way -= 1
            return Scored(result(photograph))

    scorer = Gathering()
    assert run(tmp_path, scorer, concurrency=concurrency).done == 5
    assert scorer.most == wanted


@pytest.mark.parametrize("concurrency", [1, 2])
def test_as_many_images_are_read_ahead_as_are_scored_at_once_and_no_more(
    tmp_path: Path, concurrency: int
) -> None:
    names = [f"{index:02}.jpg" for index in range(12)]
    read: list[str] = []
    held: list[int] = []
    scorer = Script()

    def reader(name: str) -> Callable[[], bytes]:
        def read_it() -> bytes:
            read.append(name)
            held.append(len(read) - len(scorer.asked))  # under way and ahead
            return name.encode()

        return read_it

    class Waiting:
        async def score(self, name: str, photograph: bytes) -> Scored:
            while len(read) < min(12, len(scorer.asked) + 2 * concurrency):  # until those ahead are read
                await asyncio.sleep(0)
            return await scorer.score(name, photograph)

    images = ImageSource("/walls", {name: reader(name) for name in names})
    with open_sink(tmp_path, QUESTION, names) as sink:
        asyncio.run(asyncio.wait_for(score_all(images, Waiting(), sink, concurrency=concurrency), 60))
    assert sorted(read) == names
    assert max(held) == 2 * concurrency


class TestAnImageThatCannotBeScored:
    def test_is_a_row_and_the_others_go_on(self, tmp_path: Path) -> None:
        ended = run(tmp_path, Script({"b.jpg": [Unscorable("palette colours")]}))
        assert (ended.done, ended.failed, ended.stopped) == (5, 1, None)
        assert table(tmp_path) == {**dict.fromkeys(NAMES), "b.jpg": "palette colours"}

    def test_is_not_asked_for_again(self, tmp_path: Path) -> None:
        run(tmp_path, Script({"b.jpg": [Unscorable("palette colours")]}))
        again = Script()
        assert run(tmp_path, again).failed == 1
        assert again.asked == []

    def test_is_asked_for_again_where_failures_are_to_be_tried(self, tmp_path: Path) -> None:
        run(tmp_path, Script({"b.jpg": [Unscorable("palette colours")]}))
        again = Script()
        assert run(tmp_path, again, sink_options={"failed": "retry"}).failed == 0
        assert again.asked == ["b.jpg"]
        assert table(tmp_path) == dict.fromkeys(NAMES)

    def test_may_be_one_that_cannot_be_read(self, tmp_path: Path) -> None:
        def torn() -> bytes:
            raise DataError("b.jpg: cannot be read (Permission denied); mend it")

        scorer = Script()
        assert run(tmp_path, scorer, images=source(b=torn, c=bytes)).failed == 2
        errors = table(tmp_path)
        assert errors["b.jpg"] == "b.jpg: cannot be read (Permission denied); mend it"
        assert "empty" in str(errors["c.jpg"])
        assert sorted(scorer.asked) == ["a.jpg", "d.jpg", "e.jpg"]


class TestBackPressure:
    def test_waits_as_long_as_it_was_told_or_a_little_longer_and_never_gives_up(self, tmp_path: Path) -> None:
        clock = Clock()
        scorer = Script({"b.jpg": [Busy("wait", seconds=7)] * 40})
        assert run(tmp_path, scorer, clock=clock).failed == 0
        assert len(clock.waits) == 40
        assert all(7 <= wait <= 7 * 1.25 for wait in clock.waits)
        assert len(set(clock.waits)) > 30

    def test_is_no_failure_of_anybody(self, tmp_path: Path) -> None:
        busy, gone = Busy("wait", seconds=1), Unreachable("gone")
        scorer = Script({"b.jpg": [gone, *[busy] * 9, gone, *[busy] * 9]})
        assert run(tmp_path, scorer, retry=Retry(tries=3)).stopped is None


class TestNobodyAnswers:
    def test_is_tried_again_ever_later_up_to_a_limit(self, tmp_path: Path) -> None:
        clock = Clock()
        scorer = Script({"c.jpg": [Unreachable("gone")] * 6})
        retry = Retry(tries=10, first_seconds=1, most_seconds=10)
        assert run(tmp_path, scorer, clock=clock, retry=retry).failed == 0
        for wait, whole in zip(clock.waits, [1, 2, 4, 8, 10, 10], strict=True):
            assert whole / 2 <= wait <= whole

    def test_the_waits_follow_from_the_seed_and_the_image(self, tmp_path: Path) -> None:
        waits = []
        for place, seed in (("a", 0), ("b", 0), ("c", 1)):
            clock = Clock()
            scorer = Script({name: [Unreachable("gone")] for name in NAMES})
            run(tmp_path / place, scorer, clock=clock, seed=seed)
            waits.append(sorted(clock.waits))
        assert waits[0] == waits[1] != waits[2]
        assert len(set(waits[0])) == 5

    def test_too_often_stops_the_batch_and_the_image_has_no_row(self, tmp_path: Path) -> None:
        scorer = Script({"c.jpg": [Unreachable("http://x: nobody answers")] * 3})
        ended = run(tmp_path, scorer, concurrency=1, retry=Retry(tries=3))
        assert ended == BatchResult(5, 2, 0, "http://x: nobody answers", None)
        assert not (tmp_path / "results.parquet").exists()
        again = Script()
        assert run(tmp_path, again).stopped is None
        assert sorted(again.asked) == ["c.jpg", "d.jpg", "e.jpg"]
        assert table(tmp_path) == dict.fromkeys(NAMES)

    def test_holds_for_a_store_of_images_too(self, tmp_path: Path) -> None:
        left = 2

        def sometimes() -> bytes:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OSError("curlCode: 28,\nTimeout was reached")
            return b"c.jpg"

        assert run(tmp_path, Script(), images=source(c=sometimes), retry=Retry(tries=3)).failed == 0
        left = 99
        ended = run(tmp_path / "x", Script(), images=source(c=sometimes), retry=Retry(tries=3))
        assert ended.stopped == "c.jpg: cannot be read now (curlCode: 28, Timeout was reached)"

    def test_one_image_at_which_the_scorer_fails_again_and_again_is_named_and_stops_nothing(
        self, tmp_path: Path
    ) -> None:
        scorer = Script({"c.jpg": [Failing("a request is answered: the service failed")] * 3})
        ended = run(tmp_path, scorer, retry=Retry(tries=3))
        assert (ended.done, ended.failed, ended.stopped) == (5, 1, None)
        assert table(tmp_path)["c.jpg"] == "a request is answered: the service failed (tried 3 times)"

    def test_by_default_a_service_has_a_minute_to_start_again(self) -> None:
        class Shortest(random.Random):
            def uniform(self, a: float, b: float) -> float:
                return a

        assert sum(Retry().seconds(failures, Shortest()) for failures in range(1, Retry().tries)) > 45


class TestAnEnd:
    def test_on_request_keeps_what_is_done_and_goes_on_later(self, tmp_path: Path) -> None:
        async def stopped_after_two() -> BatchResult:
            stop = asyncio.Event()

            def on_image(done: int, _: int) -> None:
                if done == 2:
                    stop.set()

            class TwoAnswers(Script):
                async def score(self, name: str, photograph: bytes) -> Scored:
                    if len(self.asked) == 2:
                        await asyncio.Event().wait()
                    return await super().score(name, photograph)

            with sunk(tmp_path) as sink:
                scorer = TwoAnswers()
                return await score_all(source(), scorer, sink, concurrency=1, stop=stop, on_image=on_image)

        ended = asyncio.run(stopped_after_two())
        assert (ended.done, ended.stopped, ended.results) == (2, "a stop was asked for", None)
        again = Script()
        assert run(tmp_path, again).done == 5
        assert len(again.asked) == 3

    def test_is_at_once_though_everybody_waits(self, tmp_path: Path) -> None:
        async def stopped_while_waiting() -> BatchResult:
            stop = asyncio.Event()

            async def for_ever(_: float) -> None:
                stop.set()
                await asyncio.Event().wait()

            scorer = Script({name: [Busy("wait", seconds=1)] for name in NAMES})
            with sunk(tmp_path) as sink:
                return await score_all(source(), scorer, sink, stop=stop, wait=for_ever)

        assert asyncio.run(asyncio.wait_for(stopped_while_waiting(), 20)).done == 0

    @pytest.mark.parametrize("error", [SpecError("401: a token is needed"), FissuraError("another model")])
    def test_by_what_is_no_image_s_fault_is_told_and_rows_are_kept(
        self, tmp_path: Path, error: FissuraError
    ) -> None:
        with pytest.raises(type(error), match=str(error)):
            run(tmp_path, Script({"c.jpg": [error]}), concurrency=1)
        again = Script()
        run(tmp_path, again)
        assert sorted(again.asked) == ["c.jpg", "d.jpg", "e.jpg"]

    def test_by_cancellation_waits_for_the_row_that_is_being_written(self, tmp_path: Path) -> None:
        writing, go_on = threading.Event(), threading.Event()

        class Slowly:
            def __init__(self, sink: Sink) -> None:
                self.done, self.failed, self._sink = sink.done, sink.failed, sink
                self.flush, self.finish = sink.flush, sink.finish

            def add(self, name: str, scored: Scored) -> None:
                writing.set()
                assert go_on.wait(20)
                self._sink.add(name, scored)

        async def cancelled(sink: Any) -> None:
            batch = asyncio.create_task(score_all(source(["a.jpg"]), Script(), sink))
            await asyncio.to_thread(writing.wait, 20)
            batch.cancel()
            await asyncio.sleep(0.01)
            go_on.set()
            await batch

        with sunk(tmp_path) as sink, pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled(Slowly(sink)))
        with sunk(tmp_path) as sink:
            assert sink.done == {"a.jpg"}

    def test_by_a_full_disk_is_told_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Sink, "_flush", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, Script())


def test_images_that_are_gone_from_the_source_keep_their_rows_and_new_ones_are_scored(tmp_path: Path) -> None:
    run(tmp_path, Script(), images=source(["a.jpg", "b.jpg"]))
    ended = run(tmp_path, Script(), images=source(["b.jpg", "c.jpg"]))
    assert (ended.images, ended.done) == (2, 2)
    assert list(table(tmp_path)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_nothing_left_to_do_needs_nobody(tmp_path: Path) -> None:
    run(tmp_path, Script())
    before = (tmp_path / "results.parquet").stat().st_mtime_ns
    scorer: Any = None
    assert run(tmp_path, scorer).done == 5
    assert (tmp_path / "results.parquet").stat().st_mtime_ns == before
