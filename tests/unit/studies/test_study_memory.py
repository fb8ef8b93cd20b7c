"""A study in memory and its database: what the one holds, the other does, in one transaction a new trial."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from fissura.records.study_ranking import Ranking, best_trials
from fissura.records.trial_attributes import RUN
from fissura.spaces.samplers.tpe import BEST, BoundedTPE
from fissura.studies.study_memory import StudyMemory


@pytest.fixture
def database(tmp_path: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
    yield storage
    storage.engine.dispose()


def begun(database: RDBStorage, **changes: Any) -> tuple[StudyMemory, optuna.Study]:
    memory = StudyMemory(database, name="study")
    changes = {"direction": "maximize", "load_if_exists": True} | changes
    return memory, optuna.create_study(storage=memory, study_name="study", **changes)


def facts(trial: optuna.trial.FrozenTrial) -> tuple[Any, ...]:
    parts = (trial.number, trial.state, trial.values, trial.params, trial.distributions)
    return (*parts, trial.user_attrs, trial.system_attrs, trial.intermediate_values)


def both(database: RDBStorage, study: optuna.Study) -> None:
    stored = optuna.load_study(study_name="study", storage=database)
    assert list(map(facts, stored.trials)) == list(map(facts, study.trials))
    assert stored.user_attrs == study.user_attrs


def test_the_database_holds_whatever_became_of_trials(database: RDBStorage) -> None:
    memory, study = begun(database)
    study.set_user_attr("why", "a test")
    study.enqueue_trial({"x": 0.5}, user_attrs={"paper": True})
    for number in range(6):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("kind", ["a", "b"])
        trial.set_user_attr(RUN, f"run{number}")
        memory.write()
        trial.report(0.25, 1)
        if number == 1:
            study.tell(trial, state=TrialState.FAIL)
        elif number == 2:
            study.tell(trial, state=TrialState.PRUNED)
        elif number != 5:
            study.tell(trial, 0.5 + number)
    study.ask().set_user_attr("skipped", "the same")
    study.tell(6, state=TrialState.FAIL)
    both(database, study)


def test_another_process_goes_on_from_the_database(database: RDBStorage) -> None:
    memory, study = begun(database)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    memory.write()
    study.tell(study.ask(), 0.5)

    _, again = begun(database)
    both(database, again)
    taken = optuna.Trial(again, again.trials[0]._trial_id)
    taken.report(0.75, 2)
    again.tell(taken, 0.75)
    both(database, again)
    assert again.ask().number == 2


def test_a_new_trial_is_one_transaction_and_a_suggestion_reads_nothing(
    database: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, study = begun(database, sampler=BoundedTPE(seed=0, startup=2))
    for value in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, float(value))
    calls: list[str] = []

    def count(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*arguments, **named)

        return counted

    for name in (
        "create_new_trial",
        "set_trial_param",
        "set_trial_system_attr",
        "get_all_trials",
        "get_trial",
    ):
        monkeypatch.setattr(database, name, count(name, getattr(database, name)))
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(RUN, "run")
    assert calls == []
    memory.write()
    assert calls == ["create_new_trial"]


def sampled(sampler: optuna.samplers.BaseSampler, trials: int) -> list[float]:
    study = optuna.create_study(sampler=sampler)
    chosen = []
    for number in range(trials):
        trial = study.ask()
        x = trial.suggest_float("x", -10, 10)
        chosen.append(x)
        if number % 3 == 0:
            trial.report((x - 2) ** 2, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, (x - 2) ** 2)
    return chosen


def test_tpe_is_optunas_up_to_its_bound_and_as_good_beyond_it() -> None:
    optunas = sampled(optuna.samplers.TPESampler(seed=3, n_startup_trials=5), 80)
    assert sampled(BoundedTPE(seed=3, startup=5, history=80), 80) == optunas
    bounded = sampled(BoundedTPE(seed=3, startup=5, history=40), 80)
    assert bounded[:40] == optunas[:40]
    assert bounded != optunas
    assert min(abs(x - 2) for x in bounded) < 0.1


def test_tpe_beyond_its_bound_looks_at_the_best_the_running_and_the_latest() -> None:
    sampler = BoundedTPE(seed=0, startup=5, history=20)
    study = optuna.create_study(sampler=sampler)
    for value in range(200):
        study.add_trial(optuna.trial.create_trial(value=float(value)))
    running = study.ask()
    for _ in range(30):
        study.add_trial(optuna.trial.create_trial(value=500.0))
    stopped = study.ask()
    stopped.report(-1.0, 3)
    study.tell(stopped, state=TrialState.PRUNED)

    def seen() -> set[int]:
        return {trial.number for trial in sampler._within(study)._get_trials(deepcopy=False)}

    assert seen() == {*range(BEST), running.number, *range(212, 232)}
    for value in (-1.0, 500.0):
        study.tell(study.ask(), value)
    # what ends is ranked as it ends
    for _ in range(30):
        study.tell(study.ask(), 500.0)
    assert seen() == {*range(BEST - 1), 232, running.number, *range(244, 264)}


@pytest.mark.parametrize("directions", [["maximize"], ["minimize"], ["maximize", "minimize"]])
def test_a_ranking_that_is_kept_up_is_one_that_is_made_anew(directions: list[str]) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=directions)
    kept = Ranking(study)
    for number in range(60):
        values = [float(value) for value in rng.integers(0, 8, len(directions))]
        study.add_trial(optuna.trial.create_trial(values=values, user_attrs={RUN: f"{number}"}))
        kept.add(study.get_trials(deepcopy=False)[-1])
        if len(directions) > 1:
            front = {trial.number for trial in study.best_trials}
            assert {trial.number for trial in kept.trials} == front
        assert [trial.number for trial in kept.trials] == [trial.number for trial in best_trials(study)]
        assert kept.runs(best=3) == [trial.user_attrs[RUN] for trial in kept.trials[:3]]
