"""A study is about its own data: wherever they lie now, and whatever else its runs were scored on."""

import html
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from PIL import Image

from fissura.core.errors import DataError, SpaceError
from fissura.data.content import content_digest
from fissura.data.datasets import Folder
from fissura.data.labelled import labelled_digest, parse_labelled
from fissura.data.synthetic import SyntheticSpec, write
from fissura.metrics import parse_protocol
from fissura.records.class_store import ClassifiedImage, ClassifierFacts, write_classes
from fissura.records.manifest import DataFacts, Manifest
from fissura.records.trial_attributes import RUN
from fissura.segmentation.evaluation import evaluate
from fissura.studies.plan import Request, make_plan
from fissura.studies.study import Plan, Study

CPU = torch.device("cpu")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPACE = "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\nspace:\n  model.depth: {int: [2, 4]}\n"
CLASSES = (
    "recipe: cnn_svm\nobjective: {metric: cv/f1, mode: max}\n"
    "space:\n  classifier.C: {float: [0.1, 10.0], log: true}\n"
)


def folder(root: Path, *, seed: int) -> Path:
    write(SyntheticSpec(train=1, val=1, test=2, height=32, width=32, crack_width=(1.5, 4), seed=seed), root)
    return root


def walls(root: Path) -> Path:
    """A folder a class, of four images each."""
    for place, grey in (("sound", 180), ("cracked", 60)):
        (root / place).mkdir(parents=True)
        for number in range(4):
            noise = np.random.default_rng([grey, number]).integers(0, 40, (24, 24, 3))
            Image.fromarray((grey + noise).astype(np.uint8)).save(root / place / f"{number}.png")
    return root


def begun(
    path: Path, *, space: str, datasets: tuple[Any, ...], content: str, values: tuple[float, ...]
) -> Study:
    """A study with completed trials, each of the run `one`."""
    study = Study(path)
    study.write(
        Plan(name=path.name, space=space, profile=None, fixed={}, datasets=datasets, content=content,
             trials=2, seed=0)
    )  # fmt: skip
    trials = optuna.create_study(study_name=path.name, storage=study.storage(), direction="maximize")
    for value in values:
        trials.add_trial(optuna.create_trial(value=value, user_attrs={RUN: "one"}))
    return study


@pytest.fixture
def study(tmp_path: Path, write_segmenter: Callable) -> Study:
    """A study of images in `bridge`, on which its run was scored."""
    bridge = Folder(root=folder(tmp_path / "bridge", seed=1))
    made = begun(
        tmp_path / "studies" / "it", space=SPACE, datasets=(bridge,), content=content_digest([bridge]),
        values=(0.5,),
    )  # fmt: skip
    evaluate(write_segmenter(made.runs / "one"), datasets=[bridge], device=CPU)
    return made


@pytest.fixture
def classes(tmp_path: Path) -> Study:
    """A study of the walls in `walls`."""
    datasets = parse_labelled([f"class_folder:{walls(tmp_path / 'walls')}"])
    content = labelled_digest(datasets, directory=tmp_path / "cache")
    return begun(
        tmp_path / "studies" / "it", space=CLASSES, datasets=datasets, content=content, values=(0.5,)
    )


def resumed(study: Study, *data: str, cache: Path | None = None, extend: int = 0) -> Plan:
    request = Request(
        space=None, data=data, storage=study.path.parent, trials=None, name="it", profile="auto", fixed={},
        seed=0, begin="resume", extend=extend,
    )  # fmt: skip
    return make_plan(request, cache or study.path.parents[1] / "cache", profile="cpu")[1]


def said(page: Path) -> str:
    """The text of a page, without what no reader sees."""
    body = re.sub(r"<(script|style).*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_precision_and_recall_are_drawn_where_their_curves_are_kept(fissura: Callable, study: Study) -> None:
    assert fissura("report", study.path).code == 0
    assert "Precision and recall" not in said(study.path / "report.html")
    evaluate(
        study.runs / "one",
        datasets=study.plan().datasets,
        protocols=[parse_protocol("flexible:2")],
        device=CPU,
    )
    assert fissura("report", study.path).code == 0
    assert "Precision and recall" in said(study.path / "report.html")


class TestScoresOnOtherData:
    def test_leave_a_study_s_headline_ranking_and_pictures_as_they_were(
        self, fissura: Callable, study: Study, tmp_path: Path
    ) -> None:
        files = ["report.html", "leaderboard.html", "leaderboard.md", "leaderboard.csv"]
        assert fissura("report", study.path).code == 0
        before = {name: said(study.path / name) for name in files}
        pictures = (study.path / "report.html").read_text("utf-8").count("<img")
        assert pictures

        other = folder(tmp_path / "a tunnel", seed=2)  # which comes before `bridge`
        assert fissura("evaluate", study.runs / "one", "--data", f"folder:{other}").code == 0
        assert fissura("report", study.path).code == 0

        after = {name: said(study.path / name) for name in files}
        assert {name: after[name] for name in files[1:]} == {name: before[name] for name in files[1:]}
        assert (study.path / "report.html").read_text("utf-8").count("<img") == pictures
        head, foot = before["report.html"].split("On held-out images", 1)[0], "What produced this Study"
        assert after["report.html"].startswith(head[: head.index("Held-out images")])
        assert "could not be read" not in after["report.html"]
        short = content_digest([Folder(root=other)])[:8]
        crossed = after["report.html"].split("On other data")[-1].split(foot)[0]
        assert f"a tunnel ({short}), test" in crossed
        assert f"bridge ({study.plan().content[:8]}), test" in crossed
        assert "a tunnel" not in before["report.html"]

    def test_of_classifiers_stand_apart_too(self, fissura: Callable, classes: Study) -> None:
        own = classes.plan().content
        for content in (own, "e" * 16):
            write_rows(classes.runs / "one", content)
        assert fissura("report", classes.path).code == 0
        page = said(classes.path / "report.html")
        assert f"walls ({own[:8]}), test: clean" in page
        assert "(eeeeeeee), test: clean" not in page, "it has no ranking here"
        assert "walls (eeeeeeee), test" in page.split("On other data")[-1]
        assert "eeeeeeee" not in (classes.path / "leaderboard.md").read_text("utf-8")


def write_rows(run: Path, content: str) -> None:
    """Writes what the run `one` made of images of this content, or adds to it."""
    plain: dict[str, Any] = {"name": "cnn_svm", "seed": 0}
    manifest = Manifest.collect(
        run_id="one", recipe=plain, seed=0,
        data=DataFacts(digest=content, datasets=({"kind": "class_folder", "root": "/data/walls"},)),
        accelerator="cpu", cpus=1, started=NOON, finished=NOON, parameters=1, best_epoch=1, epochs=1,
        energy_joules=None,
    )  # fmt: skip
    rows = [
        ClassifiedImage(
            run_id="one", recipe="cnn_svm", configuration="c", seed=0, dataset="class_folder",
            data_digest=content, split="test", condition="clean", image=str(number), group=str(number),
            label=number % 2, prediction=number % 2, decision=[number % 2 - 0.5],
            data_name="walls",
        )
        for number in range(6)
    ]  # fmt: skip
    write_classes(run, rows, manifest, facts=ClassifierFacts(classes=("sound", "cracked")))


class TestDataThatWereMoved:
    def test_are_taken_where_they_lie_now_and_remembered(self, study: Study, tmp_path: Path) -> None:
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        for extend in (0, 2):
            plan = resumed(study, f"folder:{tmp_path / 'elsewhere'}", extend=extend)
            assert plan.datasets == (Folder(root=tmp_path / "elsewhere"),)
            assert (plan.content, plan.trials) == (study.plan().content, 2 + extend)
        study.write(plan)
        assert resumed(study) == plan, "the next time nobody needs to say it"

    def test_are_taken_under_the_name_of_another_kind(self, study: Study, tmp_path: Path) -> None:
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        plan = resumed(study, f"synthetic:{tmp_path / 'elsewhere'}")
        assert plan.datasets == (Folder(root=tmp_path / "elsewhere"),), "read as the study reads them"

    def test_are_read_with_the_options_that_the_study_has(self, study: Study, tmp_path: Path) -> None:
        for mask in (tmp_path / "bridge" / "masks").rglob("*.png"):
            mask.rename(mask.with_name(f"{mask.stem}_m.png"))
        own = Folder(root=tmp_path / "bridge", mask_suffix="_m", name="the bridge")
        study.write(study.plan().model_copy(update={"datasets": (own,), "content": content_digest([own])}))
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        plan = resumed(study, f"folder:{tmp_path / 'elsewhere'}")
        assert plan.datasets == (own.model_copy(update={"root": tmp_path / "elsewhere"}),)

    def test_of_classifiers_too(self, classes: Study, tmp_path: Path) -> None:
        (tmp_path / "walls").rename(tmp_path / "elsewhere")
        plan = resumed(classes, f"class_folder:{tmp_path / 'elsewhere'}", extend=1)
        assert [str(dataset) for dataset in plan.datasets] == [f"class_folder:{tmp_path / 'elsewhere'}"]
        (tmp_path / "elsewhere" / "sound" / "0.png").unlink()
        with pytest.raises(SpaceError) as caught:
            resumed(classes, f"class_folder:{tmp_path / 'elsewhere'}", extend=1)
        assert classes.plan().content in str(caught.value)

    def test_of_other_content_are_refused_with_both_digests(self, study: Study, tmp_path: Path) -> None:
        other = folder(tmp_path / "tunnel", seed=2)
        with pytest.raises(SpaceError) as caught:
            resumed(study, f"folder:{other}")
        for digest in (study.plan().content, content_digest([Folder(root=other)])):
            assert digest in str(caught.value)

    def test_that_nobody_names_are_asked_for(self, study: Study, tmp_path: Path) -> None:
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="if its images were moved, say where they are by --data"):
            resumed(study)

    def test_are_not_needed_by_report_and_leaderboard(
        self, fissura: Callable, study: Study, tmp_path: Path
    ) -> None:
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        assert fissura("leaderboard", "show", study.path).code == 0
        made = fissura("report", study.path)
        assert made.code == 0, made.said
        assert any("pictures are left out" in line for line in made.said)
        page = said(study.path / "report.html")
        assert page.count(f"The pictures are left out: {tmp_path / 'bridge'}") >= 1
        assert "F1" in page

    def test_are_the_run_s_own_when_it_is_evaluated(
        self, study: Study, tmp_path: Path, fissura: Callable
    ) -> None:
        (tmp_path / "bridge").rename(tmp_path / "elsewhere")
        evaluate(study.runs / "one", datasets=[Folder(root=tmp_path / "elsewhere")], device=CPU)
        shown = fissura("leaderboard", "show", study.path).out
        assert shown.count("pixel, 2 images") == 1


def test_the_printed_command_names_whole_paths_and_a_study_beside_this_one(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (study.path / "space.yaml").unlink()  # as in studies of earlier versions
    words = shlex.split(Study(Path("studies/it")).command())
    assert words[:3] == ["fissura", "search", str(study.path / "space.yaml")]
    assert (study.path / "space.yaml").read_text("utf-8") == SPACE
    named = dict(zip(words[3::2], words[4::2], strict=True))
    assert named["--data"] == f"folder:{tmp_path / 'bridge'}"
    assert (named["--storage"], named["--name"]) == (str(tmp_path / "studies"), "it-again")
