"""The verbs as functions: what they take, and what they give."""

import inspect
import json
import re
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fissura
from fissura import api
from fissura.api import arguments
from fissura.api.arguments import fixed_of
from fissura.core.brief import Brief
from fissura.core.errors import DataError, SpaceError, SpecError, UserError
from fissura.data.content import content_digest
from fissura.data.datasets import Folder, parse_datasets
from fissura.data.labelled import ClassFolder, Patches, parse_labelled
from fissura.recipes import load_recipe
from fissura.spaces.load import load_space, search_spaces
from fissura.studies.study import Plan, Study

VERBS = sorted(fissura.__all__)
PATHS = {
    "storage", "cache", "run", "runs", "best", "out", "masks", "predictions", "valid", "token_file", "roots",
    "write_config", "study", "directory", "paths", "space", "recipe",
}  # fmt: skip
FORMS = {
    "AnyPath", "AnyPath | None", "Paths", "Data", "Named",
}  # fmt: skip


def parameters(verb: str) -> dict[str, str]:
    """Each argument of a verb, with its type as it is written."""
    found = inspect.signature(getattr(fissura, verb)).parameters
    return {name: written(each.annotation) for name, each in found.items()}


def written(annotation: Any) -> str:
    names = {
        arguments.AnyPath: "AnyPath",
        arguments.AnyPath | None: "AnyPath | None",
        arguments.Paths: "Paths",
        arguments.Data: "Data",
    }
    return names[annotation] if annotation in names else inspect.formatannotation(annotation).strip("'")


class TestEveryVerb:
    @pytest.mark.parametrize("verb", VERBS)
    def test_takes_a_path_and_data_as_a_string_or_an_object(self, verb: str) -> None:
        taken = parameters(verb)
        wanted = {name: taken[name] for name in taken.keys() & (PATHS | {"data", "images"})}
        assert set(wanted.values()) <= FORMS, wanted
        left = {name: form for name, form in taken.items() if re.search(r"\bPath\b", form)}
        assert not left, "a type of its own for a path"

    @pytest.mark.parametrize("verb", VERBS)
    def test_takes_several_where_it_takes_data_sets(self, verb: str) -> None:
        assert parameters(verb).get("data", "Data") == "Data"

    def test_is_in_the_package_s_docstring(self) -> None:
        assert all(f"`{verb}`" in str(fissura.__doc__) for verb in VERBS)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own: twenty images with a crack each, and their masks."""
    root, generator = tmp_path_factory.mktemp("data") / "bridge", np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(20):
        mask = np.zeros((48, 48), np.uint8)
        mask[:, 4 + 2 * number] = 255
        wall = generator.integers(120, 200, (48, 48, 3)).astype(np.uint8)
        Image.fromarray(np.where(mask[..., None] > 0, 30, wall).astype(np.uint8)).save(
            root / "images" / f"{number:02}.png"
        )
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, of three images each."""
    root, generator = tmp_path_factory.mktemp("walls"), np.random.default_rng(0)
    for label in ("crack", "sound"):
        (root / label).mkdir()
        for number in range(3):
            Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
                root / label / f"{number}.png"
            )
    return root


class TestData:
    def test_is_a_text_an_object_or_the_path_of_a_folder(self, images: Path) -> None:
        forms = (f"folder:{images}", Path(f"folder:{images}"), images, Folder(root=images))
        assert {parse_datasets([form]) for form in forms} == {(Folder(root=images),)}

    def test_that_is_an_object_keeps_its_settings(self, images: Path) -> None:
        (found,) = parse_datasets([Folder(root=images, seed=7, validation_share=0.3)])
        assert (found.seed, found.validation_share) == (7, 0.3)

    def test_with_labels_is_a_folder_a_class(self, walls: Path) -> None:
        forms = (f"class_folder:{walls}", walls, ClassFolder(root=walls))
        assert {parse_labelled([form]) for form in forms} == {(ClassFolder(root=walls),)}

    def test_of_the_other_task_is_refused_as_its_text_is(self, images: Path, walls: Path) -> None:
        for form in (f"class_folder:{walls}", ClassFolder(root=walls)):
            with pytest.raises(DataError, match="segmentation needs a mask of every image"):
                parse_datasets([form])
        for source in (f"folder:{images}", Folder(root=images)):
            with pytest.raises(DataError, match="has masks and no labels; cut squares from it"):
                parse_labelled([source])

    def test_that_is_named_twice_is_refused_whatever_its_form(self, images: Path) -> None:
        with pytest.raises(DataError, match="is named twice"):
            parse_datasets([f"folder:{images}", images])


class TestCheck:
    def test_names_what_is_wrong_in_a_few_lines_and_as_a_frame(self, images: Path, walls: Path) -> None:
        for data in (f"folder:{images}", images, Folder(root=images)):
            found = fissura.check(data)
            assert sum(found.samples.values()) == 20
        assert repr(found).splitlines()[0].endswith(f"({images})")
        assert len(found.to_pandas()) == len(found.warnings) + len(found.notes) + len(found.problems)
        assert fissura.check(ClassFolder(root=walls)).samples == {"crack": 3, "sound": 3}
        with pytest.raises(DataError, match="is cut from another data set; check that one"):
            fissura.check(Patches(source=Folder(root=images)))


class TestPrepare:
    def test_keeps_images_with_masks(self, images: Path, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        found = fissura.prepare(images, cache=str(tmp_path), on_image=lambda *counts: seen.append(counts))
        assert sum(found.samples.values()) == 20
        assert seen[-1] == (20, 20)
        assert found.cache == tmp_path
        assert repr(found).endswith(f": {tmp_path}")
        assert found.digest == content_digest([Folder(root=images)])
        assert found.to_pandas()["images"].sum() == 20
        assert fissura.prepare([Folder(root=images)], cache=tmp_path).digest == found.digest

    def test_is_undone_by_prune_down_to_the_room_that_is_left(self, images: Path, tmp_path: Path) -> None:
        fissura.prepare(images, cache=tmp_path)
        (held,) = (pixels.parent for pixels in tmp_path.glob("*/pixels.bin"))
        size = sum(path.stat().st_size for path in held.iterdir())
        assert fissura.prune(keep_gib=1, cache=tmp_path).freed_bytes == 0
        assert held.is_dir()
        pruned = fissura.prune(keep_gib=0, cache=str(tmp_path))
        assert not held.exists()
        assert pruned.freed_bytes == size
        assert repr(pruned) == f"0 MiB freed: {tmp_path}"

    def test_names_the_files_that_are_left_out_each_time(self, images: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        shutil.copytree(images, data)
        for name in ("IMG_1.HEIC", "b.cr2", "Thumbs.db", "._0.png"):
            (data / "images" / name).write_bytes(bytes(99))
        for _ in range(2):
            said: list[str] = []
            fissura.prepare(data, cache=tmp_path / "cache", say=said.append)
            (note,) = [line for line in said if "left out" in line]
            assert "images: 2 files left out by their suffix: IMG_1.HEIC, b.cr2;" in note

    def test_reads_images_with_labels(self, walls: Path, tmp_path: Path) -> None:
        found = fissura.prepare(f"class_folder:{walls}", cache=tmp_path)
        assert sum(found.samples.values()) == 6
        assert found.cache == tmp_path
        assert fissura.prepare(ClassFolder(root=walls), cache=str(tmp_path)).digest == found.digest

    def test_at_a_size_is_for_masks_alone(
        self, images: Path, walls: Path, tmp_path: Path, fissura: Callable[..., Any]
    ) -> None:
        for data, code in ((f"folder:{images}", 0), (f"class_folder:{walls}", 2)):
            words = ("data", "prepare", data, "--size", "32x32", "--cache", tmp_path / "cache")
            assert fissura(*words).code == code
        assert fissura("data", "prepare", f"class_folder:{walls}", "--cache", tmp_path / "cache").code == 0

    def test_of_both_kinds_at_once_is_refused(self, images: Path, walls: Path, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="prepare them apart"):
            fissura.prepare([images, f"class_folder:{walls}"], cache=tmp_path)


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A recipe of two epochs, trained on data that is named by an object; in a folder that a string names."""
    storage = tmp_path_factory.mktemp("storage")
    return fissura.train(
        "small_unet", data=Folder(root=images), storage=str(storage), cache=storage / "cache",
        cpus_per_worker=1,
        fixed={"model.width": 4, "model.depth": 2, "data.crop.size": 32, "epochs": 2},
    )  # fmt: skip


def test_the_verbs_are_offered_by_a_notebooks_completion() -> None:
    assert {*VERBS} <= {*dir(fissura)}


class TestResults:
    def test_of_a_training_are_its_run_and_manifest(self, trained: Any) -> None:
        run, manifest = trained
        assert (run / "manifest.json").is_file()
        assert (trained.run, trained.manifest) == (run, manifest)
        assert repr(trained).splitlines()[-1] == f"run: {run}"
        assert trained.to_pandas().loc[0, "epochs"] == 2

    def test_of_an_evaluation_are_rows_with_their_run(self, trained: Any, images: Path) -> None:
        rows = fissura.evaluate(str(trained.run), data=[images], protocols="pixel")
        assert len(rows) == len(rows.to_pandas()) > 0
        assert rows.run == trained.run
        assert re.fullmatch(
            r"bridge \(\w{8}\) test, pixel, threshold [\d.]+: mean F1 [\d.]+ of \d images\nrun: .*",
            repr(rows),
        )
        for paths in (str(trained.run), trained.run.parent, [trained.run]):
            board = fissura.leaderboard(paths)
            assert board.best_run == trained.run
            assert repr(board).splitlines()[-1] == f"best run: {trained.run}"
            assert len(repr(board).splitlines()) == 2
            assert board.to_pandas().loc[0, "recipe"] == "small_unet"

    def test_of_a_classifier_stand_in_the_same_leaderboard(
        self, classifier_run: Path, walls: Path, tmp_path: Path
    ) -> None:
        run = shutil.copytree(classifier_run, tmp_path / classifier_run.name)
        rows = fissura.classify(str(run), data=walls, cache=tmp_path / "cache")
        assert "clean: F1" in repr(rows)
        assert repr(rows).splitlines()[-1] == f"run: {run}"
        board = fissura.leaderboard(str(tmp_path))
        assert [row["recipe"] for row in board.rows()] == ["walls"]
        assert board.best_run == run
        assert board.to_pandas().loc[0, "condition"] == "clean"

    def test_of_anyone_s_maps_are_scores_of_each_image(self, images: Path) -> None:
        found = fissura.score(str(images / "masks"), images / "masks", protocol="pixel")
        assert repr(found).splitlines()[:2] == [
            "20 images, pixel, at threshold 0.5",
            "  pooled: precision 1.0000, recall 1.0000, f1 1.0000",
        ]
        assert len(found.to_pandas()) == 20

    def test_of_nothing_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no evaluated run lies there"):
            fissura.leaderboard(str(tmp_path))


def test_the_demo_searches_its_own_images_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(api, "search", lambda space, **words: asked.append({"space": space, **words}))
    fissura.demo(str(tmp_path / "demo"), trials=2)
    [first] = asked
    assert (first["space"], first["trials"], first["begin"], first["profile"]) == (
        "small_unet",
        2,
        "new",
        "demo",
    )
    (dataset,) = parse_datasets(first["data"])
    assert dataset.kind == "synthetic"
    assert {sample.split for sample in dataset.samples()} == {"train", "val", "test"}
    study = Study(first["storage"] / first["name"])
    plan = {
        "name": "demo", "space": "recipe: small_unet", "profile": None, "fixed": {}, "content": "c" * 16,
        "trials": 2, "datasets": [dataset.plain()], "seed": 0,
    }  # fmt: skip
    study.write(Plan.load(plan, source="test"))
    drawn = {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*.png")}
    fissura.demo(tmp_path / "demo", trials=3)
    assert (asked[1]["begin"], asked[1]["extend"], asked[1]["data"]) == ("resume", 1, ())
    assert {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*.png")} == drawn


def results(base: type) -> list[type]:
    return [each for child in base.__subclasses__() for each in (child, *results(child))]


def test_every_result_prints_in_a_few_lines() -> None:
    """A dataclass would write its own."""
    from fissura.api.planning import Planned
    from fissura.batches.report import BatchReport
    from fissura.deploy.export import Bundle
    from fissura.distributed.search.search_result import SearchResult

    assert {Planned, Bundle, SearchResult, BatchReport} <= set(results(Brief))
    for each in results(Brief):
        assert each.__repr__ is Brief.__repr__, each
        assert isinstance(each.to_pandas, Callable), each


def test_several_data_sets_are_checked_with_a_report_of_each(images: Path, walls: Path) -> None:
    one = fissura.check(images)
    several = fissura.check([images, f"class_folder:{walls}"])
    assert (several[0], len(several)) == (one, 2)
    assert repr(several).splitlines() == [*one.lines(), *several[1].lines()]


class TestAWord:
    """One word stands for itself: its letters are no words."""

    def test_is_a_protocol(self) -> None:
        assert api.parse_protocols("tolerant:2") == api.parse_protocols(["tolerant:2"])

    def test_is_an_objective(self, images: Path, tmp_path: Path) -> None:
        with pytest.raises(SpaceError, match=r"^--objective: 'val/fl' is not known; did you mean") as told:
            fissura.search("small_unet", data=images, storage=tmp_path, objectives="val/fl")
        assert len(told.value.problems) == 1


class TestFixedValues:
    """What a notebook holds: paths, and numbers of NumPy."""

    def test_are_read_as_their_text_and_numbers(self) -> None:
        given = {
            "model.weights": Path("a.safetensors"),
            "data.crop": {"kind": "random", "size": np.int64(64)},
        }
        plain = fixed_of(given)
        assert plain == {"model.weights": "a.safetensors", "data.crop": {"kind": "random", "size": 64}}
        assert type(plain["data.crop"]["size"]) is int
        assert given["data.crop"] == {"kind": "random", "size": np.int64(64)}

    def test_that_are_none_are_refused_by_path(self, images: Path, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"`data.crop`: .*\(got a object\)"):
            fissura.search(
                "small_unet", data=images, storage=tmp_path, fixed={"data.crop": {"size": object()}}
            )
        assert not list(tmp_path.iterdir())


def test_a_space_and_a_recipe_may_lie_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(search_spaces()["small_unet"].read_text())
    assert load_space("~/mine.yaml").name == "mine"
    (tmp_path / "recipe.json").write_text(json.dumps(load_recipe("small_unet").plain()))
    assert load_recipe("~/recipe.json") == load_recipe("small_unet")


class TestRollout:
    @pytest.mark.parametrize(
        ("endpoint", "says"),
        [
            ("ftp://h:1", "a service's address is http://HOST:PORT"),
            ("http://user:secret@h:1", "an address holds no password"),
            ("http://h:1/?a=b", "a service's address is http://HOST:PORT"),
        ],
    )
    def test_takes_an_address_as_a_batch_does(self, endpoint: str, says: str) -> None:
        with pytest.raises(SpecError, match=re.escape(says)) as caught:
            api.rollout(endpoint=endpoint)
        assert "secret" not in str(caught.value)

    def test_asks_the_same_of_an_address_with_a_slash_at_its_end(self) -> None:
        asked: list[str] = []

        class Service(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                asked.append(f"{self.command} {self.path}")
                body = b'{"default": "cracks"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with HTTPServer(("127.0.0.1", 0), Service) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            for end in ("", "/"):
                api.rollout(endpoint=f"http://127.0.0.1:{server.server_port}{end}")
            server.shutdown()
            thread.join()
        assert asked == ["GET /v1/models", "POST /v1/models/cracks/rollback"] * 2
