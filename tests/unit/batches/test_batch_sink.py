"""Where a batch's results go: one row an image and no row without its pictures, whatever dies when."""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fissura.batches.pictures import bare_name, picture_path, picture_stems
from fissura.batches.rows import read_rows, schema
from fissura.batches.scorer import Disagreement, Result, Scored
from fissura.batches.sink import Question, open_sink
from fissura.core.errors import DataError, SpecError
from fissura.data.lock import LOCK
from fissura.segmentation.crack_measures import measure

SEGMENTED: dict[str, Any] = {
    "model": "cracks",
    "version": 3,
    "run": "1a2b3c4d5e6f",
    "task": "segmentation",
    "image": {"name": None, "height": 4, "width": 6, "sha256": "a" * 64, "remarks": ["grey"]},
    "threshold": 0.42,
    "cracks": measure(np.eye(4, 6, dtype=bool), mm_per_pixel=0.5).plain(),
    "crack_table": measure(np.eye(4, 6, dtype=bool), mm_per_pixel=0.5).table(),
    "seconds": 0.125,
}
CLASSIFIED: dict[str, Any] = {
    **{key: SEGMENTED[key] for key in ("model", "version", "run", "image", "seconds")},
    "task": "classification",
    "label": "crack",
    "decisions": [0.25, -1.0],
}
QUESTION = Question(
    source="/walls", model="cracks", run="1a2b3c4d5e6f", version=3, task="segmentation", threshold=0.42
)
NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]


def scored(plain: dict[str, Any] = SEGMENTED, **pictures: bytes) -> Scored:
    kinds: dict[Any, bytes] = dict(pictures)
    return Scored(Result.of(plain), kinds)


def opened(out: Path, question: Question = QUESTION, names: list[str] = NAMES, **options: Any) -> Any:
    return open_sink(out, question, names, **options)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, read without the project's reader."""
    return list(pq.read_table(path).to_pylist())


def files(out: Path) -> list[str]:
    """What lies there, but for the lock of who works on it."""
    found = [path for path in out.rglob("*") if path.is_file() and path.name != LOCK]
    return sorted(path.relative_to(out).as_posix() for path in found)


class TestARow:
    def test_of_a_segmentation_holds_its_measures(self, tmp_path: Path) -> None:
        with opened(tmp_path) as sink:
            sink.add("a.jpg", scored())
            (row,) = rows(sink.finish())
        cracks: dict[str, Any] = SEGMENTED["cracks"]
        assert cracks["area_px"] == 4
        assert row == {
            **dict.fromkeys(schema().names),
            "image": "a.jpg",
            "sha256": "a" * 64,
            "height": 4,
            "width": 6,
            "remarks": ["grey"],
            "run": "1a2b3c4d5e6f",
            "version": 3,
            "task": "segmentation",
            "threshold": 0.42,
            "seconds": 0.125,
            **cracks,
            "crack_table": SEGMENTED["crack_table"],
        }
        (crack,) = row["crack_table"]
        assert (crack["box"], crack["orientation_degrees"]) == ([0, 0, 4, 4], 135)

    def test_of_a_classification_holds_its_label(self, tmp_path: Path) -> None:
        with opened(tmp_path) as sink:
            sink.add("a.jpg", scored(CLASSIFIED))
            (row,) = rows(sink.finish())
        assert (row["label"], row["decisions"]) == ("crack", [0.25, -1.0])
        assert {row[name] for name in ("threshold", "area_px", "length_px", "error")} == {None}

    def test_of_an_image_that_failed_says_why_and_which_bytes(self, tmp_path: Path) -> None:
        with opened(tmp_path) as sink:
            sink.fail("a.jpg", "it is torn", photograph=b"abc")
            sink.fail("b.jpg", "it is missing")
            torn, missing = rows(sink.finish())
        sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert torn == {
            **dict.fromkeys(schema().names),
            "image": "a.jpg",
            "error": "it is torn",
            "sha256": sha256,
        }
        assert (missing["error"], missing["sha256"]) == ("it is missing", None)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"task": "segmentation", "cracks": None},
            {"task": "classification"},
            {"threshold": 2},
            {"seconds": float("nan")},
            {"image": {"height": 4, "width": 6}},
            {"image": {"height": 4, "width": 6, "sha256": "short"}},
            {"cracks": {"area_px": "many"}},
        ],
    )
    def test_is_of_a_whole_result_alone(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(Disagreement):
            Result.of({**SEGMENTED, **wrong})

    def test_a_later_service_may_say_more(self) -> None:
        assert Result.of({**SEGMENTED, "mood": "good"}) == Result.of(SEGMENTED)


class TestTheTable:
    def test_holds_all_rows_sorted_by_image_and_no_part_is_left(self, tmp_path: Path) -> None:
        with opened(tmp_path, rows=2) as sink:
            for name in reversed(NAMES):
                sink.add(name, scored())
            assert [path for path in files(tmp_path) if "part" in path] == [
                "results/part-000000.parquet",
                "results/part-000001.parquet",
            ]
            path = sink.finish()
        assert [row["image"] for row in rows(path)] == NAMES
        assert files(tmp_path) == ["batch.json", "results.parquet"]
        assert not (tmp_path / "results").exists()

    def test_a_part_is_written_when_its_oldest_row_has_waited_long_enough(self, tmp_path: Path) -> None:
        now = 100.0
        with opened(tmp_path, seconds=30, clock=lambda: now) as sink:
            sink.add("a.jpg", scored())
            now = 129.0
            sink.add("b.jpg", scored())
            assert files(tmp_path) == ["batch.json"]
            now = 130.0
            sink.add("c.jpg", scored())
        assert len(rows(tmp_path / "results/part-000000.parquet")) == 3

    def test_goes_on_where_it_ended(self, tmp_path: Path) -> None:
        with opened(tmp_path) as sink:
            sink.add("b.jpg", scored())
            sink.flush()
        with opened(tmp_path) as sink:
            assert sink.done == {"b.jpg"}
            sink.add("a.jpg", scored())
            sink.finish()
        with opened(tmp_path) as sink:
            assert sink.done == {"a.jpg", "b.jpg"}
            sink.add("c.jpg", scored())
            assert [row["image"] for row in rows(sink.finish())] == ["a.jpg", "b.jpg", "c.jpg"]

    def test_of_no_image_is_empty(self, tmp_path: Path) -> None:
        with opened(tmp_path) as sink:
            assert rows(sink.finish()) == []

    def test_many_threads_may_add_to_it(self, tmp_path: Path) -> None:
        names = [f"{index}.jpg" for index in range(64)]
        with opened(tmp_path, names=names, rows=5) as sink:

            def add(share: list[str]) -> None:
                for name in share:
                    sink.add(name, scored())

            threads = [threading.Thread(target=add, args=(names[start::4],)) for start in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [row["image"] for row in rows(sink.finish())] == sorted(names)


class TestImagesThatFailed:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        with opened(tmp_path) as sink:
            sink.fail("a.jpg", "torn")
            sink.add("b.jpg", scored())
            sink.finish()
        return tmp_path

    def test_are_kept_by_default(self, out: Path) -> None:
        with opened(out) as sink:
            assert (sink.done, sink.failed) == ({"a.jpg", "b.jpg"}, {"a.jpg"})

    def test_are_tried_again_when_asked_and_a_result_takes_the_place_of_the_failure(self, out: Path) -> None:
        with opened(out, failed="retry") as sink:
            assert (sink.done, sink.failed) == ({"b.jpg"}, set())
            sink.add("a.jpg", scored())
            table = rows(sink.finish())
        assert [(row["image"], row["error"]) for row in table] == [("a.jpg", None), ("b.jpg", None)]

    def test_that_fail_again_tell_of_the_last_failure(self, out: Path) -> None:
        with opened(out, failed="retry") as sink:
            sink.fail("a.jpg", "still torn")
            assert sink.failed == {"a.jpg"}
            assert [row["error"] for row in rows(sink.finish())] == ["still torn", None]

    def test_a_result_stays_when_an_older_failure_is_left_over(self, out: Path) -> None:
        """As where a process died while it removed the parts."""
        (out / "results").mkdir()
        with opened(out, failed="retry") as sink:
            sink.add("a.jpg", scored())
            sink.finish()
        table = read_rows(out / "results.parquet")
        failed = pa.Table.from_pylist([{"image": "a.jpg", "error": "torn"}], schema=schema())
        (out / "results").mkdir()
        pq.write_table(failed.replace_schema_metadata(metadata(out)), out / "results/part-000007.parquet")
        with opened(out) as sink:
            assert sink.failed == set()
            assert read_rows(sink.finish()) == table


def metadata(out: Path) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = pq.read_schema(out / "results.parquet").metadata
    return {b"fissura.batches": found[b"fissura.batches"]}


class TestAnotherFolder:
    @pytest.mark.parametrize(
        "change",
        [
            {"source": "/roofs"},
            {"model": "other"},
            {"run": "f" * 12},
            {"version": 4},
            {"threshold": 0.5},
            {"mm_per_pixel": 0.1},
            {"pictures": ("masks",)},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_batch_goes_on_with_its_own_question_alone(
        self, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        with opened(tmp_path) as sink:
            sink.add("a.jpg", scored())
            sink.finish()
        before = files(tmp_path)
        with (
            pytest.raises(DataError, match="another --out") as caught,
            opened(tmp_path, QUESTION.model_copy(update=change)),
        ):
            pass
        assert f"`{next(iter(change))}`" in str(caught.value)
        assert files(tmp_path) == before

    @pytest.mark.parametrize("name", ["results", "results.parquet", "masks", "probabilities", "overlays"])
    def test_a_folder_of_something_else_is_not_written_to(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=f"{name} of something else"), opened(tmp_path):
            pass
        assert files(tmp_path) == []

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(DataError, match="is a file"), opened(tmp_path / "out"):
            pass

    def test_a_question_that_is_none_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "batch.json").write_text("{}")
        with pytest.raises(SpecError, match=r"batch\.json: `source`"), opened(tmp_path):
            pass

    def test_has_one_writer_at_a_time(self, tmp_path: Path) -> None:
        with opened(tmp_path), pytest.raises(DataError, match="another process writes"), opened(tmp_path):
            pass
        with opened(tmp_path):
            pass


class TestFilesThatAreNoRows:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        with opened(tmp_path, rows=1) as sink:
            sink.add("a.jpg", scored())
            sink.add("b.jpg", scored())
        return tmp_path

    def torn(self, part: Path) -> None:
        part.write_bytes(part.read_bytes()[:-20])

    def empty(self, part: Path) -> None:
        part.write_bytes(b"")

    def other_columns(self, part: Path) -> None:
        pq.write_table(pa.table({"image": ["b.jpg"]}), part)

    def of_another_batch(self, part: Path) -> None:
        pq.write_table(read_rows(part), part)

    @pytest.mark.parametrize("spoil", ["torn", "empty", "other_columns", "of_another_batch"])
    def test_a_part_that_is_none_is_passed_over_and_left_alone(self, out: Path, spoil: str) -> None:
        part = out / "results/part-000001.parquet"
        getattr(self, spoil)(part)
        held, said = part.read_bytes(), list[str]()
        with opened(out, say=said.append) as sink:
            assert sink.done == {"a.jpg"}
            sink.add("b.jpg", scored())
            assert [row["image"] for row in rows(sink.finish())] == ["a.jpg", "b.jpg"]
        assert part.read_bytes() == held
        (line,) = said
        assert line.startswith(f"passed over {part}: ")

    @pytest.mark.parametrize("spoil", ["torn", "empty", "other_columns", "of_another_batch"])
    def test_a_table_that_is_none_is_refused_and_left_alone(self, out: Path, spoil: str) -> None:
        with opened(out) as sink:
            table = sink.finish()
        getattr(self, spoil)(table)
        held = table.read_bytes()
        with pytest.raises(DataError, match="move it away"), opened(out):
            pass
        assert table.read_bytes() == held

    def test_what_killed_writers_left_is_removed_and_nothing_else(self, out: Path) -> None:
        (out / "masks/deep").mkdir(parents=True)
        for name in (
            "results/.part-000002.parquet.0a1b2c3d.tmp",
            "masks/deep/.a.png.0a1b2c3d.tmp",
            "masks/.x.tmp",
        ):
            (out / name).write_bytes(b"x")
        with opened(out):
            pass
        assert [name for name in files(out) if ".tmp" in name] == ["masks/.x.tmp"]


class TestPictures:
    KEPT = QUESTION.model_copy(update={"pictures": ("masks", "overlays")})

    def test_of_the_kinds_that_were_asked_for_lie_under_the_images_names(self, tmp_path: Path) -> None:
        names = ["a.jpg", "a.png", "deep/b.JPG", "c.d.tif"]
        with opened(tmp_path, self.KEPT, names) as sink:
            for name in names:
                sink.add(name, scored(masks=b"m", overlays=b"o", probabilities=b"p"))
            sink.finish()
        assert files(tmp_path) == [
            "batch.json",
            *("masks/a.jpg.png", "masks/a.png.png", "masks/c.d.png", "masks/deep/b.png"),
            *("overlays/a.jpg.jpg", "overlays/a.png.jpg", "overlays/c.d.jpg", "overlays/deep/b.jpg"),
            "results.parquet",
        ]

    def test_a_name_too_long_for_a_file_is_that_image_s_failure(self, tmp_path: Path) -> None:
        long = "x" * 246 + ".jpg"
        with opened(tmp_path, self.KEPT, [long, "a.jpg"]) as sink:
            sink.add(long, scored(masks=b"m", overlays=b"o"))
            sink.add("a.jpg", scored(masks=b"m", overlays=b"o"))
            errors = {row["image"]: row["error"] for row in rows(sink.finish())}
        assert "rename the image" in errors[long]
        assert errors["a.jpg"] is None

    def test_a_name_that_is_a_folder_s_is_that_image_s_failure(self, tmp_path: Path) -> None:
        names = ["a.jpg", "a.png/b.jpg"]
        with opened(tmp_path, self.KEPT, names) as sink:
            for name in names:
                sink.add(name, scored(masks=b"m", overlays=b"o"))
            assert [row["error"] is None for row in rows(sink.finish())] == [True, False]

    @pytest.mark.parametrize("stem", ["../a", "/a", "a/../../b", "a//b", "."])
    def test_never_leave_the_folder(self, tmp_path: Path, stem: str) -> None:
        with pytest.raises(DataError, match="plain relative path"):
            picture_path(tmp_path, "masks", stem)


PARTS_OF_NAMES = st.sampled_from(["a", "A", "b", "a.jpg", "a.png", "x/a", "a.jpg.png", "jpg"])
FILE_NAMES = st.tuples(PARTS_OF_NAMES, st.sampled_from(["", ".jpg", ".JPG", ".png", ".tif", ".v2"])).map(
    "".join
)


@given(st.sets(FILE_NAMES, max_size=12))
def test_no_two_images_share_a_picture(names: set[str]) -> None:
    stems = picture_stems(names)
    assert set(stems) == names
    assert len(set(stems.values())) == len(names)
    assert all(stem in (name, bare_name(name)) for name, stem in stems.items())


IMAGES = st.sets(FILE_NAMES.filter(lambda name: bare_name(name) != name), max_size=6)


@given(IMAGES, IMAGES)
def test_images_that_come_later_take_no_picture_of_those_that_are_done(
    before: set[str], after: set[str]
) -> None:
    done, now = picture_stems(before), picture_stems(before | after)
    assert not {done[name] for name in before} & {now[name] for name in after - before}


def test_a_name_alone_loses_its_suffix_and_a_name_of_a_sample_has_none_to_lose() -> None:
    assert picture_stems(["wall/a.jpg", "b.v2", "001"]) == {
        "wall/a.jpg": "wall/a",
        "b.v2": "b.v2",
        "001": "001",
    }


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestAFullDisk:
    KEPT = QUESTION.model_copy(update={"pictures": ("masks",)})

    def test_leaves_no_torn_picture_and_no_row_without_one(self, tmp_path: Path) -> None:
        with opened(tmp_path, self.KEPT) as sink:
            sink.add("a.jpg", scored(masks=bytes(100)))
            with file_size_limit(50_000), pytest.raises(OSError, match="too large"):
                sink.add("b.jpg", scored(masks=bytes(60_000)))
            assert sink.done == {"a.jpg"}
            sink.flush()
        assert files(tmp_path) == ["batch.json", "masks/a.png", "results/part-000000.parquet"]

    def test_loses_no_row_that_waits_for_its_part(self, tmp_path: Path) -> None:
        with opened(tmp_path, QUESTION) as sink:
            sink.add("a.jpg", scored())
            with file_size_limit(1_000), pytest.raises(OSError, match="too large"):
                sink.flush()
            assert files(tmp_path) == ["batch.json"]
            sink.flush()
        assert [row["image"] for row in rows(tmp_path / "results/part-000000.parquet")] == ["a.jpg"]

    def test_keeps_the_parts_until_the_table_is_whole(self, tmp_path: Path) -> None:
        with opened(tmp_path, QUESTION, rows=1) as sink:
            sink.add("a.jpg", scored())
            sink.add("b.jpg", scored())
            with file_size_limit(1_000), pytest.raises(OSError, match="too large"):
                sink.finish()
            assert len(files(tmp_path)) == 3
            assert [row["image"] for row in rows(sink.finish())] == ["a.jpg", "b.jpg"]


# Processes that are killed before each change that they make to the folder, one process a change, and what
# others find and make of it. The driver uses nothing that has threads, so that children may be its copies.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
import pandas  # as pyarrow does in every child, which takes long
import pyarrow.parquet as pq
from fissura.batches.scorer import Result, Scored
from fissura.batches.sink import Question, open_sink

place, result = Path(sys.argv[1]), json.loads(sys.argv[2])
NAMES = ["a.jpg", "b.jpg", "c.jpg"]
QUESTION = Question(source="/walls", run="1a2b3c4d5e6f", version=3, task="segmentation", pictures=("masks",))
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")

def child(work):
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def batch(out, kill_before):
    left = kill_before
    def audit(event, arguments):
        nonlocal left
        reads = event == "open" and arguments[1] in ("r", "rb", None)
        if event in CHANGES and str(arguments[0]).startswith(str(out)) and not reads:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
    sys.addaudithook(audit)
    with open_sink(out, QUESTION, NAMES, rows=2, failed="retry") as sink:
        for name in NAMES:
            if name in sink.done:
                continue
            if name == "b.jpg" and not (out / "tried").exists():
                (out / "tried").touch()
                sink.fail(name, "torn")
            else:
                sink.add(name, Scored(Result.of(result), {"masks": name.encode() * 50}))
        sink.finish()

def look(out):
    parts = [*out.glob("results/part-*.parquet"), *out.glob("results.parquet")]
    rows = [row for part in parts for row in pq.read_table(part, use_threads=False).to_pylist()]
    pictures = {path.name: path.read_text() for path in (out / "masks").glob("[!.]*")}
    left = sorted(path.name for path in out.rglob("*") if path.is_file() and path.suffix != ".png")
    return {"rows": [[row["image"], row["error"]] for row in rows], "pictures": pictures, "files": left}

def go_on(out, code):
    found = look(out)
    batch(out, 10**6)
    batch(out, 10**6)
    print(json.dumps({"code": code, "found": found, "end": look(out)}), flush=True)

kill_before, code = 0, -signal.SIGKILL
while code == -signal.SIGKILL:
    out = place / str(kill_before)
    code = child(lambda: batch(out, kill_before))
    assert child(lambda: go_on(out, code)) == 0
    kill_before += 1
"""


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One record a process: what it left when it was killed, and what the next made of it. The last lived."""
    place = tmp_path_factory.mktemp("deaths")
    command = [sys.executable, "-c", DRIVER, str(place), json.dumps(SEGMENTED)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
class TestAProcessThatIsKilledBeforeAnyOfItsChanges:
    def test_dies_at_many_points_and_once_at_none(self, deaths: list[dict[str, Any]]) -> None:
        assert len(deaths) > 30
        assert [one["code"] for one in deaths] == [*[-9] * (len(deaths) - 1), 0]

    def test_leaves_no_result_without_its_picture(self, deaths: list[dict[str, Any]]) -> None:
        for one in deaths:
            for image, error in one["found"]["rows"]:
                assert error or one["found"]["pictures"][image.replace(".jpg", ".png")] == image * 50

    def test_leaves_no_torn_picture(self, deaths: list[dict[str, Any]]) -> None:
        for one in deaths:
            for picture, text in one["found"]["pictures"].items():
                assert text == picture.replace(".png", ".jpg") * 50

    def test_is_followed_by_one_that_completes_it(self, deaths: list[dict[str, Any]]) -> None:
        for one in deaths:
            assert one["end"] == {
                "rows": [["a.jpg", None], ["b.jpg", None], ["c.jpg", None]],
                "pictures": {f"{letter}.png": f"{letter}.jpg" * 50 for letter in "abc"},
                "files": ["batch.json", "results.parquet", "tried"],
            }
