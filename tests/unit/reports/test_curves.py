"""The curves of trainings and of thresholds: every number where it was stored, the chosen points marked."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fissura.metrics import Counts, pool, rates, sweep
from fissura.records.store import CURVES, read_runs
from fissura.reports.curves import SHOWN, TrainingCurves, precision_recall_plots, training_plots
from fissura.reports.figures import Plot, draw_all
from fissura.reports.leaderboard import leaderboard


def traces_of(plot: Plot) -> list[dict[str, Any]]:
    """The lines of the figure as the page holds it."""
    (body,) = draw_all([plot])
    (data,) = re.findall(r'<script type="application/json" data-plot="plot-0">(.*?)</script>', body)
    traces: list[dict[str, Any]] = json.loads(data)["data"]
    return traces


def training(name: str, *, kept: int = 2, dice: bool = True) -> TrainingCurves:
    """Three epochs; of a version before, no Dice of the training batches was kept."""
    history = [
        {
            "epoch": epoch,
            **({"train/dice": 0.2 * epoch} if dice else {}),
            "val/dice": 0.15 * epoch,
            "train/loss": 1 / epoch,
            "val/loss": 1.2 / epoch,
        }
        for epoch in (1, 2, 3)
    ]
    return TrainingCurves(name, history, kept)


class TestTrainings:
    @pytest.mark.parametrize(("place", "measure"), [(0, "dice"), (1, "loss")])
    def test_training_and_validation_are_drawn_of_each(self, place: int, measure: str) -> None:
        known = [training("trial 0, resnet34"), training("trial 4, xception")]
        traces = traces_of(training_plots(known)[place])
        assert [trace["name"] for trace in traces] == [one.name for one in known for _ in "vt"]
        for trace, split in zip(traces, ["val", "train"] * 2, strict=True):
            assert trace["x"] == [1, 2, 3]
            assert trace["y"] == [record[f"{split}/{measure}"] for record in known[0].history]
            assert trace["line"]["dash"] == {"val": "solid", "train": "dot"}[split]
        assert len({trace["line"]["color"] for trace in traces}) == 2

    def test_the_kept_epoch_has_a_ring(self) -> None:
        validation, batches = traces_of(training_plots([training("trial 0")])[0])
        assert validation["marker"]["symbol"] == ["circle", "circle-open", "circle"]
        assert "circle-open" not in batches["marker"]["symbol"]

    def test_runs_of_a_version_before_show_what_they_kept(self) -> None:
        (only,) = traces_of(training_plots([training("trial 0", dice=False)])[0])
        assert only["line"]["dash"] == "solid"

    def test_no_more_are_drawn_than_there_are_colours(self) -> None:
        traces = traces_of(training_plots([training(f"trial {number}") for number in range(20)])[0])
        assert len(traces) == 2 * SHOWN

    def test_none_is_a_sentence(self) -> None:
        (body,) = draw_all(training_plots([]))
        assert "Not drawn: Dice at 0.5 while training and Loss while training (no finished training" in body


class TestPrecisionAndRecall:
    def test_the_curve_is_that_of_the_stored_counts_with_the_ods_point_on_it(
        self, write_scored_run: Callable[..., Path], tmp_path: Path
    ) -> None:
        run = write_scored_run(tmp_path / "a", protocols=("flexible:2", "pixel"))
        records = read_runs([run]).records
        (plot,) = precision_recall_plots(leaderboard(records))
        assert plot.title.endswith(", test: flexible:2")
        rows = [row for row in records[0].table.to_pylist() if row["protocol"] == "flexible:2"]
        images = [Counts(*(np.array(row[name], np.int64) for name in CURVES)) for row in rows]
        expected, best = rates(pool(images)), sweep(images)
        line, point = traces_of(plot)[-2:]
        assert line["x"] == pytest.approx(expected.recall[1:].tolist())
        assert line["y"] == pytest.approx(expected.precision[1:].tolist())
        assert point["marker"]["symbol"] == "square"
        assert [*point["x"], *point["y"]] == pytest.approx([best.ods.recall, best.ods.precision])
        assert line["name"] == f"#1 unet: ODS {best.ods.f1:.3f}"

    def test_without_stored_curves_there_is_no_plot(
        self, write_scored_run: Callable[..., Path], tmp_path: Path
    ) -> None:
        run = write_scored_run(tmp_path / "a", protocols=("pixel",))
        assert precision_recall_plots(leaderboard(read_runs([run]).records)) == []
