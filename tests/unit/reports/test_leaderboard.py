"""The leaderboard ranks like with like, says how sure it is, and comes out whole in every format."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from fissura.cli.board import board_text
from fissura.core.errors import DataError
from fissura.core.text import duration, scaled, shortened
from fissura.metrics import Counts, sweep
from fissura.records.store import CURVES, prediction_path, read_runs
from fissura.reports.differences import differences, flatten
from fissura.reports.export import as_text, write_leaderboard
from fissura.reports.gallery import Budget, gallery
from fissura.reports.html import page, part
from fissura.reports.leaderboard import leaderboard
from fissura.reports.pictures import MISSED, RIGHT, WRONG, overlay
from fissura.reports.statistics import NO_INTERVAL
from fissura.tasks.segmentation.leaderboard import SegmentationLeaderboard


class Reader(HTMLParser):
    """Fails on unbalanced elements; keeps the tags, the addresses, the classes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for key, value in attrs if key in ("src", "href", "action", "data", "srcset")
        ]
        if tag not in ("img", "meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


DIGEST = "d" * 16  # of the fixture's data


def parsed(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def board(tmp_path, write_scored_run):
    """A good and a bad configuration of two seeds, and another recipe."""
    for seed in (0, 1):
        write_scored_run(tmp_path / f"good-{seed}", lr=0.1, seed=seed, quality=0.97)
        write_scored_run(tmp_path / f"bad-{seed}", lr=0.2, seed=seed, quality=0.80)
    write_scored_run(tmp_path / "other", recipe="cirl", quality=0.90)
    return leaderboard(read_runs([tmp_path]).records)


def test_configurations_are_ranked_and_their_seeds_are_one_row(board):
    (table,) = board.tables
    good, other, bad = table.standings
    assert [(s.rank, s.recipe, s.seeds, s.group) for s in (good, other, bad)] == [
        (1, "unet", (0, 1), "a"),
        (2, "cirl", (0,), "b"),
        (3, "unet", (0, 1), "c"),
    ]
    assert good.differs == {"phases.train.lr": 0.1}
    assert bad.differs == {"phases.train.lr": 0.2}
    assert other.differs == {}
    shown = board_text(SegmentationLeaderboard(board)).splitlines()
    apart = [
        line.rpartition("  ")[2].strip() for line in shown if line.endswith(("differs in", "0.1", "0.2"))
    ]
    assert apart == ["differs in", "lr = 0.1", "lr = 0.2"]
    assert good.run_ids == ("good-0", "good-1")
    assert good.seconds == 90.5
    assert table.images == good.images == 6
    assert good.scores["f1"].low <= good.scores["f1"].value <= good.scores["f1"].high


def test_one_image_gives_no_interval_and_every_format_says_so(tmp_path, write_scored_run):
    for name, lr, quality in (("a", 0.1, 0.9), ("b", 0.2, 0.8)):
        write_scored_run(tmp_path / name, lr=lr, quality=quality, images=["001"])
    board = leaderboard(read_runs([tmp_path]).records)
    best, other = board.tables[0].standings
    assert (best.scores["f1"].low, best.scores["f1"].high) == (None, None)
    assert (best.group, other.group) == ("a", "a")
    texts = [as_text(board, kind=kind) for kind in ("md", "html", "latex")]
    shown = SegmentationLeaderboard(board)
    for text in (*texts, repr(shown), board_text(shown)):
        assert NO_INTERVAL in text
        assert "95 % interval 0" not in text
    (row, _) = csv.DictReader(io.StringIO(as_text(board, kind="csv")))
    assert (row["f1_low"], row["f1_high"]) == ("", "")


def test_exact_ties_share_a_rank_in_every_format(tmp_path, write_scored_run):
    """Two configurations that predict the same differ in nothing that a rank could tell."""
    for name, lr, quality in (("a", 0.1, 0.9), ("b", 0.2, 0.9), ("c", 0.3, 0.8)):
        write_scored_run(tmp_path / name, lr=lr, quality=quality)
    board = leaderboard(read_runs([tmp_path]).records)
    assert [standing.rank for standing in board.tables[0].standings] == [1, 1, 3]
    assert re.findall(r"^\| (\S+) \| unet", as_text(board, kind="md"), re.MULTILINE) == ["1", "1", "3"]
    rows = csv.DictReader(io.StringIO(as_text(board, kind="csv")))
    assert [row["rank"] for row in rows] == ["1", "1", "3"]
    assert "2 of 3 configurations (unet) share the best F1" in as_text(board, kind="html")


def test_scores_are_those_of_the_rows(tmp_path, board):
    good = board.tables[0].standings[0]
    f1 = []
    for record in read_runs([tmp_path / "good-0", tmp_path / "good-1"]).records:
        rows = record.table.to_pylist()
        sums = {
            key: sum(row[key] for row in rows)
            for key in ("true_positive", "false_positive", "found", "missed")
        }
        precision = sums["true_positive"] / (sums["true_positive"] + sums["false_positive"])
        recall = sums["found"] / (sums["found"] + sums["missed"])
        f1.append(2 * precision * recall / (precision + recall))
    assert good.scores["f1"].value == pytest.approx(np.mean(f1))
    assert good.scores["macro_f1"].value == pytest.approx(np.mean(list(good.image_f1.values())))


def test_the_same_runs_give_the_same_board_in_any_order(tmp_path, board):
    records = read_runs([tmp_path]).records
    assert leaderboard(records[::-1]) == board


def test_the_protocol_of_a_search_s_objective_leads_and_the_others_follow(tmp_path, write_scored_run):
    write_scored_run(tmp_path / "a", protocols=("pixel", "tolerant:2", "overlap"))
    board = leaderboard(read_runs([tmp_path]).records)
    led = board.led_by("tolerant:2")
    assert [table.condition.protocol for table in led.tables] == ["tolerant:2", "pixel", "overlap"]
    assert "under the protocol tolerant:2" in as_text(led, kind="html").partition("</header>")[0]
    assert board.led_by("") == board


def test_like_is_ranked_with_like_only(tmp_path, write_scored_run):
    write_scored_run(tmp_path / "a", protocols=("pixel", "tolerant:2"))
    write_scored_run(tmp_path / "b", protocols=("pixel",), source="swept on test", lr=0.2)
    write_scored_run(tmp_path / "c", protocols=("pixel",), split="val", lr=0.3)
    write_scored_run(tmp_path / "d", protocols=("pixel",), dataset="drive", lr=0.4)
    tables = leaderboard(read_runs([tmp_path]).records).tables
    assert [
        (t.condition.dataset, t.condition.split, t.condition.protocol, len(t.standings)) for t in tables
    ] == [
        ("cfd", "test", "pixel", 1),
        ("cfd", "test", "tolerant:2", 1),
        ("cfd", "test", "pixel", 1),
        ("cfd", "val", "pixel", 1),
        ("drive", "test", "pixel", 1),
    ]
    assert tables[2].standings[0].notes == ("swept on test",)


def test_an_incomplete_seed_is_left_out_and_an_incomplete_configuration_has_no_rank(
    tmp_path, write_scored_run
):
    write_scored_run(tmp_path / "a0", lr=0.1, seed=0)
    write_scored_run(tmp_path / "a1", lr=0.1, seed=1, images=("001", "002"))
    write_scored_run(tmp_path / "b", lr=0.2, quality=0.999, images=("001",))
    (table,) = leaderboard(read_runs([tmp_path]).records).tables
    whole, part = table.standings
    assert (whole.rank, whole.seeds, whole.notes) == (1, (0,), ("run a1 scored 2 of 6 images: left out",))
    assert (part.rank, part.images, part.notes) == (None, 1, ("run b scored 1 of 6 images: not ranked",))


def test_the_newest_run_of_a_seed_counts(tmp_path, write_scored_run):
    early = datetime(2026, 1, 1, tzinfo=UTC)
    write_scored_run(tmp_path / "z-old", quality=0.7, finished=early)
    write_scored_run(tmp_path / "a-new", quality=0.9, finished=early + timedelta(days=1))
    (standing,) = leaderboard(read_runs([tmp_path]).records).tables[0].standings
    assert standing.run_ids == ("a-new",)
    assert standing.notes == ("2 runs of 1 seed: the newest of each seed counts",)


def test_a_metric_that_a_table_lacks_gives_way_to_f1(tmp_path, write_scored_run):
    write_scored_run(tmp_path / "a", protocols=("overlap", "tolerant:2"))
    tables = leaderboard(read_runs([tmp_path]).records, metric="iou").tables
    assert {table.condition.protocol: table.ranked_by for table in tables} == {
        "overlap": "iou",
        "tolerant:2": "f1",
    }


def test_ods_ois_and_ap_come_from_the_curves(tmp_path, write_scored_run):
    write_scored_run(tmp_path / "a", protocols=("flexible:2",), source="swept on test")
    records = read_runs([tmp_path]).records
    (standing,) = leaderboard(records).tables[0].standings
    rows = sorted(records[0].table.to_pylist(), key=lambda row: row["image"])
    expected = sweep([Counts(*(np.array(row[name], dtype=np.int64) for name in CURVES)) for row in rows])
    assert standing.swept.ods == expected.ods.f1
    assert standing.swept.ods_threshold == expected.threshold
    assert (standing.swept.ois_mean, standing.swept.ois_sd) == (expected.ois_mean, expected.ois_sd)
    assert standing.swept.average_precision == expected.average_precision


def test_what_differs_is_told_within_a_recipe_and_never_the_seed():
    recipes = [
        {
            "name": "a",
            "seed": 0,
            "phases": [{"name": "one", "lr": 1}, {"name": "two", "lr": 1}],
            "sizes": [1, 2],
        },
        {
            "name": "a",
            "seed": 1,
            "phases": [{"name": "one", "lr": 1}, {"name": "two", "lr": 2}],
            "sizes": [1, 3],
        },
        {"name": "b", "seed": 2, "phases": [], "extra": {}},
    ]
    assert differences(recipes) == [
        {"phases.two.lr": 1, "sizes": [1, 2]},
        {"phases.two.lr": 2, "sizes": [1, 3]},
        {},
    ]
    assert flatten({"a": [{"x": 1}, {"x": 2}], "b": {}}) == {"a.0.x": 1, "a.1.x": 2, "b": {}}


def test_every_format_is_written_and_holds_every_configuration(tmp_path, board, load_picture):
    paths = write_leaderboard(board, tmp_path / "out", load=load_picture)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    table = pq.read_table(tmp_path / "out" / "leaderboard.parquet").to_pylist()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "leaderboard.csv").read_text())))
    assert [row["rank"] for row in table] == [1, 2, 3]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3]
    assert json.loads(rows[0]["run_ids"]) == ["good-0", "good-1"]
    assert json.loads(rows[0]["differs"]) == {"phases.train.lr": 0.1}
    assert float(rows[0]["f1"]) == table[0]["f1"] == board.tables[0].standings[0].scores["f1"].value
    shown = f"{table[0]['f1']:.3f}"
    for name in ("md", "html", "tex"):
        assert shown in (tmp_path / "out" / f"leaderboard.{name}").read_text()


def test_an_empty_board_says_so(tmp_path):
    board = leaderboard([])
    for kind in ("md", "latex", "html"):
        assert "No run has been scored yet." in as_text(board, kind=kind)
    assert as_text(board, kind="csv").count("\n") == 1
    write_leaderboard(board, tmp_path)


def test_names_cannot_break_out_of_any_format(tmp_path, write_scored_run, load_picture):
    evil = "<script>alert(1)</script>|_&%$#{~^\\"
    write_scored_run(tmp_path / "a", recipe=evil)
    board = leaderboard(read_runs([tmp_path]).records)
    page_ = as_text(board, kind="html", title=evil, load=load_picture)
    reader = parsed(page_)
    assert reader.tags.count("script") == 1
    assert evil in "".join(reader.text)
    latex = as_text(board, kind="latex")
    assert r"\textless{}script\textgreater{}" in latex
    assert r"|\_\&\%\$\#\{\textasciitilde{}\textasciicircum{}\textbackslash{}" in latex
    row = next(
        line for line in as_text(board, kind="md").splitlines() if "alert" in line and line.startswith("| 1")
    )
    header = next(line for line in as_text(board, kind="md").splitlines() if line.startswith("| Rank"))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", header))
    assert r"\<script>" in row


def test_the_page_is_whole_and_asks_for_nothing(board, load_picture):
    reader = parsed(as_text(board, kind="html", load=load_picture))
    assert reader.tags.count("img") == 3 * (
        2 + 2 * 3
    )  # worst, median, best: image, mask, two for each of three
    assert all(address.startswith("data:image/") for address in reader.addresses)
    text = "".join(reader.text)
    assert "Worst image of the leader" in text
    assert "the best of 3 configurations (unet) has F1" in text


def test_pictures_that_cannot_be_drawn_say_why(tmp_path, board, load_picture):
    table = board.tables[0]
    good = tmp_path / "good-0" / "predictions" / f"cfd-test-{DIGEST[:8]}"
    for path in good.iterdir():
        path.unlink()
    for path in (tmp_path / "other" / "predictions" / f"cfd-test-{DIGEST[:8]}").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    for path in (tmp_path / "bad-0" / "predictions" / f"cfd-test-{DIGEST[:8]}").iterdir():
        Image.new("L", (3, 3)).save(path)
    text = "".join(parsed(gallery(table, load=load_picture, budget=Budget())).text)
    assert "#1 unet kept no probability map of this image." in text
    assert "its size is not the image's" in text
    assert "identify" in text or "truncated" in text

    def lost(dataset, name):
        raise DataError(f"{name}: the image is gone")

    assert "The image could not be read" in gallery(table, load=lost, budget=Budget())
    assert "left out to keep this file small" in gallery(table, load=load_picture, budget=Budget(10))


def test_an_image_name_cannot_lead_out_of_its_run(tmp_path, write_scored_run):
    write_scored_run(tmp_path / "a", images=("../../../secret",))
    place = prediction_path(
        tmp_path / "a", dataset="cfd", data_digest=DIGEST, split="test", image="../../../secret"
    )
    assert place.exists()
    (table,) = leaderboard(read_runs([tmp_path / "a"]).records).tables
    blank = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8)
    shown = gallery(table, load=lambda dataset, name: blank, budget=Budget())
    assert "is not a file name" in shown
    assert shown.count("<img") == 2


def test_the_overlay_tells_right_wrong_and_missed():
    mask = np.array([[1, 1, 0, 0]], np.uint8)
    prediction = np.array([[128, 127, 128, 0]], np.uint8)
    picture = overlay(np.full((1, 4, 3), 100, np.uint8), mask, prediction, threshold=0.5)
    assert [tuple(pixel) for pixel in picture[0]] == [RIGHT, MISSED, WRONG, (160, 160, 160)]


def test_text_is_escaped_unless_it_says_it_is_markup():
    shown = part("figure", "data:", '<&>"')
    assert "<figcaption>&lt;&amp;&gt;&#34;</figcaption>" in shown
    assert 'alt="&lt;&amp;&gt;&#34;"' in shown
    assert part("section", "<b>", Markup("<b>")) == "<h3>&lt;b&gt;</h3><b>"
    assert "<title>&lt;t</title>" in page("<t")
    assert "default-src 'none'" in page("t")


def test_a_part_that_lacks_something_is_a_mistake_and_no_empty_place():
    with pytest.raises(UndefinedError, match="'caption'"):
        part("figure", "data:")


def test_numbers_read_well():
    assert [duration(value) for value in (0.04, 9.99, 59.7, 3599.6, 7260)] == [
        "0.0 s", "10 s", "1 min 0 s", "1 h 0 min", "2 h 1 min",
    ]  # fmt: skip
    assert [scaled(value) for value in (12, 4_300, 31_000_000)] == ["12", "4.30 k", "31.0 M"]
    assert scaled(123_000, "J") == "123 kJ"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["phases.train.optimizer.lr"], ["lr"]),
        (
            ["phases.warm.optimizer.lr", "phases.train.optimizer.lr"],
            ["warm.optimizer.lr", "train.optimizer.lr"],
        ),
        (["data.flip.probability", "data.blur.probability"], ["flip.probability", "blur.probability"]),
        (["model.width", "phases.train.loss.width"], ["model.width", "loss.width"]),
        (["lr", "phases.lr"], ["lr", "phases.lr"]),
        (["backbone.kind"], ["backbone.kind"]),
        (["classifier.kind", "whitening.kind", "classifier.C"], ["classifier.kind", "whitening.kind", "C"]),
        ([], []),
    ],
)
def test_a_path_is_shortened_to_what_tells_it_apart(names, expected):
    assert list(shortened(names).values()) == expected


def test_tables_shorten_paths_and_files_for_programs_do_not(board):
    for kind in ("md", "latex", "html"):
        page = as_text(board, kind=kind).replace("\\_", "_")
        table = page.partition("Manifest of run")[0]
        assert "lr = 0.1" in table
        assert "phases.train.lr" not in table
    assert "phases.train.lr" in as_text(board, kind="csv")


def test_the_manifest_of_every_run_goes_with_the_table(tmp_path, board):
    write_leaderboard(board, tmp_path / "out", formats=("parquet", "csv", "html"))
    rows = pq.read_table(tmp_path / "out" / "leaderboard.parquet").to_pylist()
    for row in rows:
        manifests = [json.loads(text) for text in row["manifests"]]
        assert [manifest["run_id"] for manifest in manifests] == row["run_ids"]
        assert all(manifest["libraries"] for manifest in manifests)
    text = (tmp_path / "out" / "leaderboard.html").read_text(encoding="utf-8")
    assert all(f"Manifest of run {run}" in text for row in rows for run in row["run_ids"])
    assert "manifests" not in (tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8")
