"""Every file of a study of either task, damaged in every way, under every command that reads.

A command passes over the file where it does not need it, or says in one line which file it is, what is wrong,
and the remedy.
"""

import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import optuna
import pytest

import made_studies
from fissura.core.errors import UserError
from fissura.deploy import export
from fissura.distributed import batch
from fissura.distributed.search import search
from fissura.records.trial_attributes import RUN
from fissura.studies.study import Study

pytestmark = pytest.mark.attacks

DERIVED = ("leaderboard.*", "report.html")
"""Written anew by `report`, and read by nobody."""
REACHED = "nothing is wrong so far"


class Reached(UserError):
    """A command came to where it would start Ray, or export: it is content with all that it read."""


def reached(*_: Any, **__: Any) -> Any:
    raise Reached(REACHED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = tmp_path_factory.mktemp("studies")
    for task in (made_studies.segmentation, made_studies.classification):
        task(place / task.__name__)
    return place


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, batch):
        monkeypatch.setattr(module, "connected", reached)
    monkeypatch.setattr(export, "check_edge", lambda: None)
    monkeypatch.setattr(export, "export_segmenter", reached)
    monkeypatch.setattr(export, "export_classifier", reached)


def commands(study: Study, run: Path, images: Path, out: Path, *, task: str) -> dict[str, list[object]]:
    """The command lines that read the study or its best run; those that write there come last."""
    data = f"folder:{images}" if task == "segmentation" else f"class_folder:{images}"
    storage: list[object] = ["--storage", study.path.parent, "--name", "it", "--cache", out / "cache"]
    judge = "evaluate" if task == "segmentation" else "interference"
    return {
        "leaderboard": ["leaderboard", "show", study.path],
        "serve": ["serve", "--best", study.path, "--write-config", out / "serve.yaml"],
        "batch": ["batch", images, "--run", run, "--out", out / "found"],
        "export": ["export", run, "--out", out / "bundle"],
        "verify": ["verify", study.path],
        "resume": ["search", "--resume", *storage],
        "extend": ["search", "--extend", 1, *storage],
        "report": ["report", study.path],
        judge: [judge, run, "--data", data],
        "repair": ["repair", study.path],
    }


@pytest.mark.parametrize("kind", made_studies.DAMAGES)
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_each_is_passed_over_or_named(
    whole: Path, tmp_path: Path, fissura: Callable[..., Any], task: str, kind: str
) -> None:
    template = Study(whole / task / "studies" / "it")
    best = optuna.load_study(study_name="it", storage=template.storage()).best_trial.user_attrs[RUN]
    images = whole / task / ("images" if task == "segmentation" else "walls")
    files = {
        path.name: path.relative_to(template.path)  # of each name the one of the best run
        for path in sorted(template.path.rglob("*"), key=lambda path: best in path.parts)
        if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in DERIVED)
    }
    wrong = []
    for file in files.values():
        place = tmp_path / file.name
        study = Study(place / "studies" / "it")
        shutil.copytree(template.path, study.path, ignore=shutil.ignore_patterns(*DERIVED))
        made_studies.damage(study.path / file, kind)
        for name, words in commands(study, study.runs / best, images, place, task=task).items():
            ended = fissura(*words)
            told = [
                line for line in ended.said if line.startswith(("error:", "failed:")) and REACHED not in line
            ]
            if ended.code == 0 or (name == "verify" and ended.code == 1):
                continue
            if ended.code != 2 or any(file.name not in line or ";" not in line for line in told):
                wrong.append((str(file), name, ended.code, ended.said[-3:]))
        shutil.rmtree(place)
    assert not wrong, "\n".join(map(str, wrong))
