"""A study whose files are damaged: a fault is told with file and remedy, and mended from its runs.

Every file, damage and command: tests/attacks/test_damaged_files.py.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import made_studies
from fissura.core.errors import SpaceError, SpecError
from fissura.core.files import write_json
from fissura.records.trial_attributes import RUN, SKIPPED
from fissura.studies.plan import Request, make_plan
from fissura.studies.repair import repair
from fissura.studies.study import Study
from fissura.studies.verification import verify

Kept = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study of each task."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = tmp_path_factory.mktemp("studies")
    for task in (made_studies.segmentation, made_studies.classification):
        task(place / task.__name__)
    return place


@pytest.fixture(params=["segmentation", pytest.param("classification", marks=pytest.mark.slow)])
def study(request: pytest.FixtureRequest, whole: Path, tmp_path: Path) -> Study:
    """A study of either task, to be damaged."""
    shutil.copytree(whole / request.param / "studies", tmp_path / "studies")
    return Study(tmp_path / "studies" / "it")


@pytest.fixture
def segments(whole: Path, tmp_path: Path) -> Study:
    shutil.copytree(whole / "segmentation" / "studies", tmp_path / "studies")
    return Study(tmp_path / "studies" / "it")


def kept(study: Study) -> Kept:
    """All that a search goes on from, of each trial. (Its times are the driver's, milliseconds earlier.)"""
    return [
        (
            trial.number, trial.state, trial.values, trial.params, trial.distributions, trial.user_attrs,
            trial.system_attrs, trial.intermediate_values,
        )
        for trial in study.load().get_trials(deepcopy=False)
    ]  # fmt: skip


class TestADatabase:
    @pytest.mark.parametrize("kind", made_studies.DAMAGES)
    def test_that_is_lost_is_rebuilt_from_the_runs(self, study: Study, kind: str, fissura: Callable) -> None:
        before = kept(study)
        damaged = study.path / "study.db"
        made_studies.damage(damaged, kind)
        content = damaged.read_bytes() if damaged.exists() else None

        ended = fissura("report", study.path)
        assert ended.code == 2
        (line,) = [line for line in ended.said if line.startswith("error: ")]
        assert line.startswith(f"error: {damaged}: is ")
        assert line.endswith(f"; rebuild it with `fissura repair {study.path}`")

        ended = fissura("repair", study.path)
        assert ended.code == 0, ended.said
        assert not [line for line in ended.said if "new study created" in line], "Optuna's own line"
        assert kept(study) == before
        assert not verify(study.path).faults
        aside = study.path / "study.db.damaged"
        assert (aside.read_bytes() if aside.exists() else None) == content
        assert fissura("report", study.path).code == 0

    def test_is_not_taken_for_a_search_that_has_not_begun(self, study: Study) -> None:
        (study.path / "study.db").unlink()
        request = Request(
            space=None, data=(), storage=study.path.parent, trials=None, name="it", profile="auto", fixed={},
            seed=0, begin="resume", extend=0,
        )  # fmt: skip
        with pytest.raises(SpaceError, match=r"study\.db: is missing, and runs stand in .*fissura repair"):
            make_plan(request, study.path.parents[1] / "cache", profile="cpu")
        shutil.rmtree(study.runs)
        with pytest.raises(
            SpaceError, match="the search has not begun its first trial; run it with --resume"
        ):
            study.load()

    def test_of_runs_without_records_is_rebuilt_from_recipes_and_metrics(self, segments: Study) -> None:
        """As a version left them that wrote no records."""
        before = {trial.user_attrs[RUN]: trial for trial in segments.load().trials}
        (segments.runs / "trials.jsonl").unlink()
        for run in before:
            (segments.runs / run).mkdir(exist_ok=True)
        (segments.path / "study.db").unlink()
        said: list[str] = []
        repair(segments, say=said.append)
        found = segments.load().trials
        assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
        assert found[0].user_attrs == {"paper": True, RUN: found[0].user_attrs[RUN]}
        for trial in found:
            assert trial.params == before[trial.user_attrs[RUN]].params
            assert trial.distributions == before[trial.user_attrs[RUN]].distributions
        assert len([line for line in said if line.startswith("left out ")]) == 2

    def test_keeps_the_numbers_where_a_record_is_lost(self, segments: Study) -> None:
        before = segments.load().trials
        records = segments.runs / "trials.jsonl"
        lines = records.read_text().splitlines(keepends=True)
        records.write_text("".join(["{}\n" if '"number": 1' in line else line for line in lines]))
        (segments.path / "study.db").unlink()
        repair(segments, say=lambda _: None)
        found = segments.load().trials
        assert [trial.number for trial in found if SKIPPED in trial.user_attrs] == [1]
        assert found[5].params == before[1].params, "its own files tell of it"
        for number in (0, 2, 3, 4):
            assert (found[number].state, found[number].values) == (
                before[number].state,
                before[number].values,
            )

    def test_goes_on_where_it_was(self, study: Study) -> None:
        (study.path / "study.db").write_bytes(b"torn")
        repair(study, say=lambda _: None)
        plan = study.plan()
        asked = made_studies.search(study, plan)
        runs = {trial.user_attrs[RUN] for trial in study.load().trials}
        assert asked.suggest("next")["run_id"] not in runs


class TestTheRecords:
    def test_of_a_version_that_wrote_one_a_folder_are_read(self, study: Study) -> None:
        before = kept(study)
        records = study.runs / "trials.jsonl"
        for line in records.read_text().splitlines():
            run = study.runs / json.loads(line)["user_attrs"][RUN]
            run.mkdir(exist_ok=True)
            write_json(run / "trial.json", json.loads(line))
        records.unlink()
        assert not verify(study.path).faults
        (study.path / "study.db").unlink()
        repair(study, say=lambda _: None)
        assert kept(study) == before

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
    def test_that_a_killed_process_left_cut_off_are_written_again(self, study: Study, share: float) -> None:
        records, before = study.runs / "trials.jsonl", kept(study)
        whole = records.read_bytes()
        records.write_bytes(whole[: int(len(whole) * share)])
        assert not verify(study.path).faults
        study.keep_missing(study.load())
        assert records.read_bytes().count(b"\n") == whole.count(b"\n")
        (study.path / "study.db").unlink()
        repair(study, say=lambda _: None)
        assert kept(study) == before

    def test_take_one_file_whatever_the_number_of_trials(self, study: Study) -> None:
        made = {path.name for path in study.runs.iterdir()}
        trained = {path.parent.name for path in study.runs.glob("*/manifest.json")}
        assert made == trained | {"plan.json", "trials.jsonl"}


class TestThePlan:
    @pytest.mark.parametrize("kind", made_studies.DAMAGES)
    def test_that_is_lost_comes_back_from_its_copy(self, study: Study, kind: str, fissura: Callable) -> None:
        plan = study.plan()
        made_studies.damage(study.path / "study.json", kind)
        ended = fissura("report", study.path)
        assert ended.code == 2
        (line,) = [line for line in ended.said if line.startswith("error: ")]
        assert line.startswith(f"error: {study.path / 'study.json'}: ")
        assert line.endswith(f"; rebuild it with `fissura repair {study.path}`")
        assert fissura("repair", study.path).code == 0
        assert study.plan() == plan
        assert not verify(study.path).faults

    def test_that_is_lost_twice_is_told_with_the_way_on(self, study: Study) -> None:
        (study.path / "study.json").write_text("[")
        study.plan_copy.unlink()
        with pytest.raises(SpaceError, match=r"the plan is lost; search again under another --name"):
            repair(study, say=lambda _: None)


class TestVerify:
    def test_finds_nothing_wrong_with_a_whole_study(self, study: Study, fissura: Callable) -> None:
        ended = fissura("verify", study.path, "--json")
        assert ended.code == 0
        found = json.loads(ended.out)
        assert (found["faults"], found["remarks"]) == ([], [])
        assert fissura("repair", study.path).out.endswith("its own files are whole; nothing was changed\n")

    def test_names_each_file_with_a_bit_that_turned(self, study: Study) -> None:
        derived = {"report.html", "search.log"}
        files = [
            path for path in sorted(study.path.rglob("*"))
            if path.is_file() and path.name not in derived and not path.name.startswith("leaderboard.")
        ]  # fmt: skip
        for path in files:
            if path.name == "study.db":
                continue  # which is compared with the records, below
            content = path.read_bytes()
            turned = bytearray(content)
            turned[len(turned) // 2] ^= 4
            path.write_bytes(turned)
            faults = verify(study.path).faults
            assert any(str(path) in fault for fault in faults), path
            path.write_bytes(content)
        assert not verify(study.path).faults

    def test_compares_the_database_with_the_records(self, study: Study) -> None:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(study.path / "study.db")) as database:
            database.execute("UPDATE trial_values SET value = value + 0.125")
            database.commit()
        faults = verify(study.path).faults
        # a pruned trial has its last value
        assert len(faults) == sum(trial.values is not None for trial in study.load().trials)
        assert all("study.db: trial " in fault and "fissura repair" in fault for fault in faults)

    def test_misses_a_run_that_is_gone(self, segments: Study) -> None:
        run = segments.runs / segments.load().best_trial.user_attrs[RUN]
        shutil.rmtree(run)
        assert [fault for fault in verify(segments.path).faults if str(run) in fault]


def test_a_file_nested_without_end_is_one_line(tmp_path: Path) -> None:
    from fissura.core.documents import LIMIT_DEPTH, parse_json, read_json

    for depth, text in ((LIMIT_DEPTH + 1, "["), (100_000, '{"a":'), (10**6, "[")):
        path = tmp_path / "plan.json"
        path.write_text('{"a": ' + text * depth + "1" + ("]" if text == "[" else "}") * depth + "}")
        with pytest.raises(
            SpecError, match=r"plan\.json: not readable as JSON \((nested deeper|holds more) .*; mend it"
        ):
            read_json(path, remedy="mend it")
    write_json(path, {"a": [[1], {"b": 2}]})
    assert read_json(path, remedy="") == {"a": [[1], {"b": 2}]}
    assert parse_json("[" * LIMIT_DEPTH + "]" * LIMIT_DEPTH) is not None
