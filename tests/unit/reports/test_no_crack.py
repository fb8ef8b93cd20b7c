"""Images without a crack: nothing is trained on them alone, and no table calls them a perfect F1."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fissura.cli.board import board_text
from fissura.core.errors import DataError
from fissura.data.content import content_digest
from fissura.data.datasets import parse_dataset
from fissura.data.labelled import check_classes, parse_labelled
from fissura.data.resize import AnyResize, Fixed, Native
from fissura.data.trainable import prepare_training
from fissura.metrics.false_alarms import FalseAlarm, summarise
from fissura.records import store
from fissura.records.store import read_runs
from fissura.reports.export import as_text, found, write_leaderboard
from fissura.reports.gallery import Budget, extremes, gallery
from fissura.reports.leaderboard import leaderboard
from fissura.segmentation.evaluation import evaluate
from fissura.tasks.segmentation.leaderboard import SegmentationLeaderboard

SENTENCE = "no crack in these images: false alarms only"
SOUND = ("sound1", "sound2", "sound3", "sound4")
CRACKED = ("001", "002")


def write_set(root: Path, *, size: int = 32, thick: int = 2, **cracked: list[bool]) -> str:
    """A folder of walls, by split: whether each has a crack; gives its `KIND:ROOT`."""
    for split, walls in cracked.items():
        for number, has_crack in enumerate(walls):
            wall = np.random.default_rng(number).integers(90, 160, (size, size, 3)).astype(np.uint8)
            mask = np.zeros((size, size), np.uint8)
            if has_crack:
                mask[size // 2 + 1 :][:thick] = 255
            for part, pixels in (("images", wall), ("masks", mask)):
                place = root / part / split / f"{split}{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place)
    return f"folder:{root}"


class TestTraining:
    def problems(self, text: str, cache: Path, resize: AnyResize | None = None) -> tuple[str, ...]:
        with pytest.raises(DataError) as refused:
            prepare_training([parse_dataset(text)], resize=resize or Native(), directory=cache)
        return refused.value.problems

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_on_a_split_without_a_crack_is_refused(self, tmp_path: Path, split: str) -> None:
        walls = {"train": [True] * 3, "val": [True] * 2, "test": [True]} | {split: [False] * 3}
        text = write_set(tmp_path / "set", **walls)
        (problem,) = self.problems(text, tmp_path / "cache")
        assert text in problem
        assert f"the masks of the 3 {split} images hold no crack pixel" in problem

    def test_on_no_crack_at_all_names_every_split(self, tmp_path: Path) -> None:
        text = write_set(tmp_path / "set", train=[False] * 3, val=[False], test=[False])
        train, val = self.problems(text, tmp_path / "cache")
        assert "3 train images" in train
        assert "one val image" in val

    def test_where_resizing_loses_every_crack_is_refused_and_says_so(self, tmp_path: Path) -> None:
        # a line of one pixel in an odd row: nearest neighbour takes even rows
        text = write_set(tmp_path / "set", size=128, thick=1, train=[True] * 2, val=[True], test=[True])
        prepare_training([parse_dataset(text)], resize=Native(), directory=tmp_path / "cache")
        lines = self.problems(text, tmp_path / "cache", Fixed(height=16, width=16, masks="nearest"))
        assert len(lines) == 2
        assert all("once they are resized to 16x16" in line for line in lines)

    def test_with_one_crack_a_split_goes_on(self, tmp_path: Path) -> None:
        text = write_set(tmp_path / "set", train=[False, False, True], val=[False, True], test=[False])
        data = prepare_training([parse_dataset(text)], resize=Native(), directory=tmp_path / "cache")
        assert len(data) == 6

    @pytest.mark.parametrize("words", [("train", "small_unet"), ("search", "small_unet", "--trials", "1")])
    def test_is_refused_with_exit_code_2_before_anything_is_written(
        self, tmp_path: Path, fissura: Callable[..., object], words: tuple[str, ...]
    ) -> None:
        text = write_set(tmp_path / "set", train=[True] * 2, val=[False] * 2, test=[True])
        code, _, said = fissura(
            *words, "--data", text, "--storage", tmp_path / "st", "--cache", tmp_path / "cache"
        )
        assert code == 2
        assert [line for line in said if line.startswith("error")] == [said[-1]]
        assert "2 val images hold no crack pixel" in said[-1]
        assert not list((tmp_path / "st").rglob("*.json"))

    def test_of_a_classifier_on_one_class_is_refused(self, tmp_path: Path) -> None:
        text = write_set(tmp_path / "set", size=64, thick=4, train=[False] * 2, val=[False], test=[True])
        (walls,) = parse_labelled([f"patches:{text}"])
        squares = walls.model_copy(update={"size": 16, "margin": 0})
        with pytest.raises(DataError, match="all 22 are of the class `no_crack`"):
            check_classes([squares], directory=tmp_path / "cache")


class TestTables:
    @pytest.fixture
    def sound(self, tmp_path: Path, write_scored_run: Callable[..., Path]) -> Path:
        """Two configurations, scored on walls without a crack: one with few false alarms, one with many."""
        for name, quality in (("many", 0.8), ("few", 0.99)):
            write_scored_run(
                tmp_path / name, lr=quality, quality=quality, images=SOUND, protocols=("pixel", "flexible:2")
            )
        return tmp_path

    def test_rank_by_false_alarms_and_have_no_f1(self, sound: Path) -> None:
        for table in leaderboard(read_runs([sound]).records).tables:
            assert table.remark == SENTENCE
            assert [standing.run_ids for standing in table.standings] == [("few",), ("many",)]
            for standing in table.standings:
                assert not {"f1", "precision", "recall", "macro_f1", "iou"} & set(standing.scores)
                assert standing.swept is None

    def test_count_false_alarms_as_score_does(self, sound: Path) -> None:
        (record,) = read_runs([sound / "few"]).records
        table = leaderboard([record]).tables[0]
        rows = [row for row in record.table.to_pylist() if row["protocol"] == "pixel"]
        alarms = [FalseAlarm(r["false_positive"], r["alarm_components"], r["alarm_area"]) for r in rows]
        theirs = summarise(alarms)
        scores = table.standings[0].scores
        assert scores["false_alarms_per_image"].value == pytest.approx(theirs["components_per_image"])
        assert scores["false_alarms_per_megapixel"].value == pytest.approx(theirs["components_per_megapixel"])
        assert scores["false_pixels_per_megapixel"].value == pytest.approx(theirs["pixels_per_megapixel"])

    def test_say_so_in_every_form_and_nowhere_that_f1_is_1(self, sound: Path) -> None:
        board = leaderboard(read_runs([sound]).records)
        for kind in ("md", "latex", "html"):
            text = as_text(board, kind=kind)
            assert SENTENCE in text, kind
            assert "1.000" not in text, kind
        shown = SegmentationLeaderboard(board)
        for text in (board_text(shown), found(board.tables[0]), repr(shown)):
            assert SENTENCE in text
            assert "F1" not in text
        for column in ("false alarms/image", "false alarms/Mpx"):
            assert column in board_text(shown)
        machine = [
            list(csv.DictReader(io.StringIO(as_text(board, kind="csv")))),
            json.loads(json.dumps(shown.plain())),
            pq.read_table(write_leaderboard(board, sound / "out", formats=("parquet",))[0]).to_pylist(),
        ]
        for read in machine:
            for row in read:
                assert row["f1"] in (None, "")
                assert row["f1_high"] in (None, "")
                assert SENTENCE in row["notes"]
                assert int(row["crack_free_images"]) == 4
                assert float(row["false_alarms_per_megapixel"]) > 0

    def test_of_mixed_images_have_f1_and_beside_it_false_alarms(
        self, tmp_path: Path, write_scored_run: Callable[..., Path]
    ) -> None:
        for name, images in (("mixed", CRACKED + SOUND), ("cracked", CRACKED)):
            write_scored_run(tmp_path / name, images=images)
        mixed, cracked = (
            leaderboard(read_runs([tmp_path / name]).records).tables[0] for name in ("mixed", "cracked")
        )
        assert mixed.remark == "4 without a crack"
        assert {"f1", "false_alarms_per_image"} <= set(mixed.standings[0].scores)
        assert cracked.remark == ""
        assert "false_alarms_per_image" not in cracked.standings[0].scores
        assert "False alarms a megapixel" in as_text(leaderboard(read_runs([tmp_path]).records), kind="md")

    def test_picture_an_image_without_a_crack_without_an_f1(
        self, sound: Path, load_picture: Callable[..., object]
    ) -> None:
        table = leaderboard(read_runs([sound]).records).tables[0]
        shown = gallery(table, load=load_picture, budget=Budget())
        assert "no crack, with false alarm" in shown
        assert "F1" not in shown

    def test_picture_no_image_that_has_nothing_to_show_as_the_best(self) -> None:
        scores = {"empty": 1.0, "alarm": 0.0, "thin": 0.4, "wide": 0.9}
        assert extremes(scores, bare={"empty", "alarm"}) == [
            ("Worst", "alarm"),
            ("Median", "thin"),
            ("Best", "wide"),
        ]
        assert extremes({"empty": 1.0}, bare={"empty"}) == [("Worst", "empty")]

    def test_of_runs_scored_by_an_earlier_version_know_false_pixels_alone(self, sound: Path) -> None:
        path = sound / "few" / store.FILE
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(list(store.LATER)), path)
        runs = read_runs([sound])
        assert not runs.skipped
        ranked = leaderboard(runs.records).tables[0]
        assert ranked.ranked_by == "false_pixels_per_megapixel"
        assert [standing.run_ids for standing in ranked.standings] == [("few",), ("many",)]
        assert "false_alarms_per_image" not in ranked.standings[0].scores
        assert SENTENCE in as_text(leaderboard(runs.records), kind="html")


class TestCommands:
    def test_evaluate_says_false_alarms_only(
        self, tmp_path: Path, segmenter_run: Path, fissura: Callable[..., object]
    ) -> None:
        text = write_set(tmp_path / "set", train=[True] * 2, val=[True], test=[False] * 3)
        run = shutil.copytree(segmenter_run, tmp_path / segmenter_run.name)
        code, out, _ = fissura("evaluate", run, "--data", text, "--protocol", "pixel")
        assert code == 0
        assert SENTENCE in out
        assert "F1" not in out
        (row,) = leaderboard(read_runs([run]).records).tables[0].standings
        maps = [np.array(Image.open(path)) for path in (run / "predictions").rglob("*.png")]
        pixels = sum(int((grey >= 128).sum()) for grey in maps)
        assert row.scores["false_pixels_per_image"].value == pytest.approx(pixels / 3)
        assert row.scores["false_pixels_per_megapixel"].value == pytest.approx(1e6 * pixels / (3 * 32 * 32))

    def test_a_threshold_is_not_chosen_on_images_without_a_crack(
        self, tmp_path: Path, write_segmenter: Callable[..., Path]
    ) -> None:
        text = write_set(tmp_path / "set", train=[True], val=[False] * 2, test=[True])
        (data,) = (parse_dataset(text),)
        run = write_segmenter(tmp_path / "run")
        recipe = json.loads((run / "recipe.json").read_text()) | {"threshold": {"kind": "validation"}}
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["data"]["digest"] = content_digest([data])
        (run / "recipe.json").write_text(json.dumps(recipe))
        (run / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match="the masks of the 2 val images hold none; give --threshold"):
            evaluate(run, datasets=[data], device=torch.device("cpu"))
        assert not (run / "run.parquet").exists()

    @pytest.mark.parametrize("protocol", ["pixel", "tolerant:2", "flexible:2", "overlap"])
    def test_score_says_false_alarms_only(
        self, tmp_path: Path, fissura: Callable[..., object], protocol: str
    ) -> None:
        for folder, value in (("maps", 0), ("masks", 0)):
            (tmp_path / folder).mkdir()
            Image.fromarray(np.full((10, 100), value, np.uint8)).save(tmp_path / folder / "a.png")
        words = ("score", tmp_path / "maps", tmp_path / "masks", "--protocol", protocol)
        code, out, _ = fissura(*words)
        assert code == 0
        assert SENTENCE in out
        assert "1.0000" not in out
        plain = json.loads(fissura(*words, "--json").out)
        assert (plain["micro"], plain["macro"], plain["remark"]) == (None, None, SENTENCE)
        assert plain["crack_free"]["components_per_megapixel"] == 0
        assert "ods" not in plain
