"""What a folder is called is never read: no path is pasted into a URL, a pattern, SQL or a shell's line."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna_dashboard._storage_url import get_storage

from fissura.core.files import sqlite_uri
from fissura.data.synthetic import SyntheticSpec, write
from fissura.studies.study import Plan, Study

ODD = "q/wall?1 %20#[a]*'é"
WORSE = ODD.replace("?1", "?2") + ' {x} $HOME "`;&|\\ <b>'
SPACE = "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\nspace:\n  model.depth: {int: [2, 4]}\n"


def begun(path: Path, value: float) -> Study:
    """A study of this name with one trial."""
    study = Study(path)
    study.write(
        Plan(name=path.name, space=SPACE, profile=None, fixed={}, datasets=(), content="0" * 16, trials=1,
             seed=0)
    )  # fmt: skip
    trials = optuna.create_study(study_name=path.name, storage=study.storage(), direction="maximize")
    trials.add_trial(optuna.create_trial(value=value))
    return study


@pytest.mark.parametrize("name", ["small_unet", "a=b&mode=memory"])
def test_a_study_s_database_lies_in_it_and_is_its_own(tmp_path: Path, name: str) -> None:
    studies = {value: begun(tmp_path / place / name, value) for value, place in ((0.1, ODD), (0.2, WORSE))}
    for value, study in studies.items():
        assert {path.name for path in study.path.iterdir()} == {
            "runs",
            "space.yaml",
            "study.db",
            "study.json",
        }
        assert [trial.value for trial in study.load().trials] == [value]
        seen = get_storage(study.url)  # what optuna-dashboard shows
        assert [trial.value for trial in seen.get_all_trials(seen.get_all_studies()[0]._study_id)] == [value]
        with sqlite3.connect(f"{sqlite_uri(study.path / 'study.db')}?mode=ro", uri=True) as database:
            assert database.execute("select value from trial_values").fetchall() == [(value,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q"]
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == sorted(
        {Path(ODD).name, Path(WORSE).name}
    )


def test_a_model_goes_from_images_to_a_ranking_in_a_folder_of_any_name(
    fissura: Callable, tmp_path: Path
) -> None:
    place = tmp_path / ODD
    write(
        SyntheticSpec(train=3, val=1, test=2, height=32, width=32, crack_width=(1.5, 4.0)), place / "images"
    )
    data = ("--data", f"synthetic:{place / 'images'}")
    settings = [
        word
        for setting in ("model.width=4", "data.crop.size=32", "data.crop.per_image=1", "epochs=1")
        for word in ("--set", setting)
    ]
    assert fissura("data", "check", f"synthetic:{place / 'images'}").code == 0
    trained = fissura(
        "train", "small_unet", *data, *settings, "--storage", place / "st", "--cache", place / "cache"
    )
    assert trained.code == 0, trained.said
    (run,) = (place / "st" / "runs").iterdir()
    (place / "images").rename(place / "moved [b]?")
    data = ("--data", f"synthetic:{place / 'moved [b]?'}")
    again = fissura(
        "train", "small_unet", *data, *settings, "--storage", place / "st", "--cache", place / "cache"
    )
    assert (again.code, again.out) == (0, trained.out.replace("/images", "/moved [b]?"))
    assert list((place / "st" / "runs").iterdir()) == [run], (
        "moved images are the same, and not trained on again"
    )
    assert fissura("evaluate", run, *data).code == 0
    for kind in ("parquet", "csv", "md", "html", "latex"):
        made = fissura("leaderboard", "export", place / "st", "--format", kind, "--out", place / "board")
        assert made.code == 0, made.said
    assert len(list((place / "board").iterdir())) == 5
    assert sorted(path.name for path in place.iterdir()) == ["board", "cache", "moved [b]?", "st"]


def test_a_relative_folder_may_look_like_a_url(
    fissura: Callable, write_scored_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scored_run(tmp_path / "s3:runs" / "one")
    monkeypatch.chdir(tmp_path)
    made = fissura("leaderboard", "export", "s3:runs", "--format", "parquet", "--out", "ab:cd")
    assert made.code == 0, made.said
    assert [path.name for path in Path("ab:cd").iterdir()] == ["leaderboard.parquet"]
