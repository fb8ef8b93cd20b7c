"""What a study's results lead with."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from fissura.studies.study import Plan, Study
from fissura.tasks.segmentation.results import SEGMENTATION_RESULTS

SPACE = """
recipe: small_unet
objective: {{metric: {}, mode: max}}
space:
  phases.train.optimizer.lr: {{float: [1.0e-4, 1.0e-1], log: true}}
"""


@pytest.mark.parametrize(
    ("metric", "order"),
    [
        ("val/f1", ["tolerant:2", "pixel", "overlap"]),
        ("val/iou", ["overlap", "pixel", "tolerant:2"]),
    ],
)
def test_the_protocol_of_the_objective_leads_tables_files_and_the_sentence(
    tmp_path: Path, write_scored_run: Callable[..., Path], metric: str, order: list[str]
) -> None:
    plan = Plan.load(
        {
            "name": "mine", "space": SPACE.format(metric), "profile": None, "content": "d" * 16, "trials": 1,
            "fixed": {}, "seed": 0,
            "datasets": [{"kind": "folder", "root": str(tmp_path / "gone")}],
        },
        source="test",
    )  # fmt: skip
    study = Study(tmp_path / "mine")
    study.write(plan)
    write_scored_run(study.runs / "a", protocols=("pixel", "tolerant:2", "overlap"))
    ranked = SEGMENTATION_RESULTS.rank(study, plan, optuna.create_study(), say=lambda _: None)
    assert [ranking.where.rpartition(", ")[2] for ranking in ranked.board.tables] == order
    assert f"under the protocol {order[0]}" in ranked.sections.found
    page = next(file for file in ranked.files if file.suffix == ".html").read_text()
    assert f"under the protocol {order[0]}" in page.partition("</header>")[0]
