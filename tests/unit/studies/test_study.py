"""A study on disk: who may search it, how it is found, which of its trials and runs count."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fissura.core.errors import SpaceError
from fissura.records.study_ranking import best_trials, finished, runs_to_keep
from fissura.records.trial_attributes import PAPER, RUN, SKIPPED
from fissura.studies.study import Plan, Study, find_study


def plan(folder: Path) -> Plan:
    return Plan.load(
        {
            "name": "mine", "space": "recipe: small_unet", "profile": None,
            "fixed": {"model.weights": "none"},
            "datasets": [{"kind": "folder", "root": str(folder / "my images")}], "content": "c" * 16,
            "trials": 5, "seed": 3,
        },
        source="test",
    )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study(tmp_path / "studies" / "mine")
    made.write(plan(tmp_path))
    return made


class TestTheClaim:
    def test_is_one_process_s_alone(self, tmp_path: Path) -> None:
        place = tmp_path / "studies" / "mine"
        hold = (
            "import sys; from pathlib import Path; from fissura.studies.study import Study\n"
            "with Study(Path(sys.argv[1])).claimed():\n"
            "    print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with (
                pytest.raises(SpaceError, match="another process searches this study"),
                Study(place).claimed(),
            ):
                pass
            other.kill()
            other.wait()
            with Study(place).claimed():
                (place / "study.json").touch()
        assert place.is_dir()

    def test_of_a_search_that_was_refused_leaves_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), Study(tmp_path / "a" / "b" / "c").claimed():
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []


class TestFinding:
    def test_takes_the_folder_or_the_only_one_below(self, study: Study) -> None:
        assert find_study(study.path) == find_study(study.path.parent) == study

    def test_names_the_choices_where_there_are_several(self, study: Study, tmp_path: Path) -> None:
        Study(study.path.with_name("other")).write(plan(tmp_path))
        with pytest.raises(SpaceError, match="there are 2"):
            find_study(study.path.parent)
        (tmp_path / "empty").mkdir()
        with pytest.raises(SpaceError, match="no study lies there"):
            find_study(tmp_path / "empty")
        with pytest.raises(SpaceError, match=r"there is no such folder; did you mean `.*/empty`\?"):
            find_study(tmp_path / "emty")

    def test_round_trips_the_plan_and_quotes_its_command(self, study: Study, tmp_path: Path) -> None:
        assert study.plan() == plan(tmp_path)
        assert f"--data 'folder:{tmp_path}/my images'" in study.command()
        assert "--set 'model.weights=\"none\"'" in study.command()

    def test_says_that_a_study_without_trials_has_not_begun(self, study: Study) -> None:
        with pytest.raises(SpaceError, match="run it with --resume"):
            study.load()


def test_the_runs_that_are_kept_are_the_best_and_the_papers() -> None:
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate((0.1, 0.4, 0.3, 0.2)):
        attributes = {RUN: f"run{number}"} | ({PAPER: True} if number == 0 else {})
        study.add_trial(create_trial(value=value, user_attrs=attributes))
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={RUN: "pruned"}))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={SKIPPED: "the same as trial 1"}))

    assert runs_to_keep(study, best=2) == ["run1", "run2", "run0"]
    assert [trial.number for trial in best_trials(study)] == [1, 2, 3, 0]
    assert len(finished(study)) == 5, "a skipped trial never ran"


def test_of_several_objectives_the_pareto_front_is_best() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ((0.9, 10.0), (0.5, 1.0), (0.4, 5.0)):
        study.add_trial(create_trial(values=list(values)))
    assert [trial.number for trial in best_trials(study)] == [0, 1]
