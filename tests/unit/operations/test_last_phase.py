"""Trials are compared by how far they are in their last phase: by ASHA, by the median rule, in a forecast."""

from pathlib import Path
from random import Random
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from ray.tune.experiment import Trial

from fissura.core.errors import SpaceError
from fissura.distributed.search.schedulers import StudyASHA, scheduler_for
from fissura.distributed.search.searcher import StudySearch
from fissura.operations.forecast.basis import drawn_phases
from fissura.operations.forecast.forecast import ForecastQuestion, Lanes, play
from fissura.operations.forecast.learning_curves import Assumed, Course
from fissura.operations.forecast.simulation import Costs
from fissura.spaces import LoadedSpace, load_space, load_text, search_spaces
from fissura.spaces.halving import Halving
from fissura.spaces.space import Asha

PROFILES = {name: yaml.safe_load(path.read_text())["profiles"] for name, path in search_spaces().items()}
STOPPING = [
    (name, profile)
    for name in sorted(PROFILES)
    if name not in ("cnn_svm", "frangi", "niblack", "sato", "sauvola")  # their trials are one step
    for profile in (None, *PROFILES[name])
]
Judgement = tuple[int, range]


def worth_judging(epoch: int, phase: range) -> bool:
    """Whether a trial has had enough of its Phase II, after this epoch, to be judged by it.

    Enough is a quarter of the epochs of its own Phase II, so that all are as far in it and a schedule over
    the phase has moved, if these are a twentieth of all its epochs or more: 100 of the paper's 2000.
    """
    done = epoch - phase.start
    return done >= len(phase) / 4 and done >= phase.stop / 20


def searched(
    space: LoadedSpace, monkeypatch: pytest.MonkeyPatch, *, seed: int
) -> tuple[list[Judgement], int]:
    """The judgements of a simulated search of the space, and its epochs. Values before a trial's last phase
    say nothing of those in it."""
    judged: list[Judgement] = []
    falls_behind = Halving.falls_behind

    def watched(self: Halving, trial: int, *, epoch: int, value: float, phase: range) -> bool:
        before = sum(map(len, self._seen.values()))
        behind = falls_behind(self, trial, epoch=epoch, value=value, phase=phase)
        if sum(map(len, self._seen.values())) > before:
            judged.append((epoch, phase))
        return behind

    monkeypatch.setattr(Halving, "falls_behind", watched)
    later = Assumed((1.0,), space.longest, startup=12, phases=drawn_phases(space)).draw

    def draw(number: int, random: Random) -> Course:
        course = later(number, random)
        assert course.phase is not None
        noise = [random.gauss(0, 1)] * course.phase.start
        return Course(1.0, course.epochs, [*noise, *course.values[course.phase.start :]], course.phase)

    question = ForecastQuestion(
        trials=space.definition.trials, epochs=space.longest, scheduler=space.definition.scheduler,
        draw=draw, nodes=1, costs=Costs(), seed=seed,
    )  # fmt: skip
    return judged, play(question, Lanes(4, 1, 0.0), repetition=0).epochs


@pytest.mark.parametrize("profile", [None, *PROFILES["cirl"]])
def test_cirl_s_trials_are_judged_by_a_second_phase_that_is_worth_it(
    profile: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space("cirl", profile=profile)
    found = [searched(space, monkeypatch, seed=seed) for seed in range(2 if profile else 1)]
    judged = [judgement for judgements, _ in found for judgement in judgements]
    assert len(judged) > space.definition.trials
    assert fmean(worth_judging(epoch, phase) for epoch, phase in judged) >= 0.8
    # half of all epochs are Phase I's, which nobody can be spared; of the others about half are
    assert 0.6 < fmean(epochs for _, epochs in found) / (space.definition.trials * space.longest) < 0.82


def test_before_a_rule_by_phases_hardly_a_trial_saw_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    phases, random, seen = drawn_phases(load_space("cirl", profile="gpu")), Random(0), 0
    rule = Halving(grace=10, reduction=3, longest=250)
    for trial in range(60):
        phase = random.choice(phases)
        behind = (
            rule.falls_behind(trial, epoch=epoch, value=random.gauss(0, 1)) for epoch in range(1, phase.start)
        )
        seen += not any(behind)
    assert seen < 20


@pytest.mark.parametrize(("name", "profile"), STOPPING)
def test_each_space_s_first_comparison_comes_neither_too_early_nor_too_late(
    name: str, profile: str | None
) -> None:
    space = load_space(name, profile=profile)
    scheduler, phase = space.definition.scheduler, space.recipe_for(space.paper_point()).last_phase
    assert isinstance(scheduler, Asha)
    assert isinstance(scheduler.grace, float)
    rule = Halving(grace=scheduler.grace, reduction=scheduler.reduction, longest=space.longest)
    rungs = [
        min(epoch for epoch in range(phase.start, phase.stop + 1) if rung in rule.reached(epoch, phase=phase))
        for rung in rule.rungs
    ]
    first = rungs[0] - phase.start
    assert len(phase) / 20 <= first <= len(phase) / 2
    assert not space.notes or "none will be stopped" not in " ".join(space.notes)


@pytest.mark.parametrize("epochs", [10, 30, 60, 300, 1000])
def test_a_share_of_a_training_of_one_phase_is_so_many_epochs(epochs: int) -> None:
    shares = Halving(grace=0.1, reduction=3, longest=epochs)
    whole = Halving(grace=epochs // 10, reduction=3, longest=epochs)
    assert len(shares.rungs) == len(whole.rungs) == 3
    for epoch in range(1, epochs + 1):
        assert len(shares.reached(epoch)) == len(whole.reached(epoch))


def stub(number: int, *, phase: range, to_end: bool = False) -> Trial:
    """A trial as Tune shows it to a scheduler."""
    config = {"number": number, "to_end": to_end, "last_phase": [phase.start, phase.stop]}
    return Trial("fissura", config=config, stub=True)


def result(epoch: int, value: float) -> dict[str, Any]:
    return {"epoch": epoch, "val/f1": value, "training_iteration": epoch}


def cirl(scheduler: dict[str, Any]) -> LoadedSpace:
    """A space of CIRL whose trials have 16 epochs, and enter Phase II at different ones."""
    plain = {
        "recipe": "cirl",
        "objective": {"metric": "val/f1", "mode": "max"},
        "scheduler": scheduler,
        "space": {"phases.ambiguity.until": {"float": [0.2, 0.8]}},
        "profiles": {"short": {"epochs": 16}},
    }
    return load_text(yaml.safe_dump(plain), source="f", profile="short")


@pytest.mark.parametrize("grace", [2, 0.25])
def test_asha_compares_trials_that_are_as_far_in_their_last_phase(grace: float) -> None:
    scheduler = scheduler_for(cirl({"kind": "asha", "grace": grace, "reduction": 2}), epochs=16, earlier=[])
    early, late = stub(1, phase=range(8, 16)), stub(2, phase=range(12, 16))
    # at epoch 10 the first has had two of its eight epochs, the other is in Phase I, which counts nowhere
    assert [scheduler.on_trial_result(None, early, result(epoch, 0.9)) for epoch in (8, 9, 10)] == [
        "CONTINUE"
    ] * 3
    for epoch in range(1, 13):
        assert scheduler.on_trial_result(None, late, result(epoch, 0.0)) == "CONTINUE"
    decisive = 14 if grace == 2 else 13
    told = {epoch: scheduler.on_trial_result(None, late, result(epoch, 0.1)) for epoch in (13, 14)}
    assert next(epoch for epoch in told if told[epoch] == "STOP") == decisive


def test_asha_decides_as_its_simulation() -> None:
    space = load_space("cirl", profile="cpu")
    spec, phases, random = space.definition.scheduler, drawn_phases(space), Random(0)
    assert isinstance(spec, Asha)
    scheduler = scheduler_for(space, epochs=space.longest, earlier=[])
    rule = Halving(grace=spec.grace, reduction=spec.reduction, longest=space.longest)
    for number in range(40):
        phase, stopped = random.choice(phases), set()
        trial = stub(number, phase=phase)
        for epoch in range(1, 16):
            value = random.random()
            simulated = rule.falls_behind(number, epoch=epoch, value=value, phase=phase)
            stopped.add((simulated, scheduler.on_trial_result(None, trial, result(epoch, value)) == "STOP"))
        assert stopped <= {(False, False), (True, True)}


@pytest.mark.parametrize("sweep", [(), (("phases.ambiguity.until", 0.25), ("phases.ambiguity.until", 0.75))])
def test_a_search_that_is_resumed_knows_how_far_its_earlier_trials_were(tmp_path: Path, sweep: Any) -> None:
    space = cirl({"kind": "asha", "grace": 0.25, "reduction": 2})
    search = StudySearch(
        space, storage=optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db"), study_name="study",
        seed=0, content="c" * 16, context={}, stop_requested=lambda: False, sweep=sweep,
    )  # fmt: skip
    scheduler = scheduler_for(space, epochs=16, earlier=[])
    for name in ("a", "b", "c"):
        config = search.suggest(name)
        phase = range(*config["last_phase"])
        assert phase.stop == 16
        assert phase.start == round(16 * config["recipe"]["phases"][0]["until"])
        trial = Trial("fissura", config=config | {"to_end": False}, stub=True)
        for epoch in range(1, 17):
            value = 0.5 if epoch > phase.start else 0.99
            search.on_trial_result(name, result(epoch, value))
            scheduler.on_trial_result(None, trial, result(epoch, value))
        end = {"finished": True, "interrupted": False, "failure": ""}
        search.on_trial_complete(name, result(16, 0.5) | end)
    again = scheduler_for(space, epochs=16, earlier=search.study.get_trials())
    assert isinstance(scheduler, StudyASHA)
    assert isinstance(again, StudyASHA)
    assert again._halving._values == scheduler._halving._values
    assert again._halving._values[0.25] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("grace", [1, 0.25])
def test_the_median_rule_leaves_values_of_an_earlier_phase_out(grace: float) -> None:
    controller = SimpleNamespace(get_live_trials=list)
    scheduler = scheduler_for(cirl({"kind": "median", "grace": grace}), epochs=16, earlier=[])
    for number, begin in enumerate((4, 8, 12)):
        known = stub(number, phase=range(begin, 16))
        scheduler.on_trial_add(None, known)
        for epoch in range(1, 17):
            told = scheduler.on_trial_result(controller, known, result(epoch, 0.9 if epoch <= begin else 0.5))
            assert told == "CONTINUE"
        scheduler.on_trial_complete(None, known, {"epoch": 16, "failure": "no value"})
    good, weak = stub(8, phase=range(12, 16)), stub(9, phase=range(12, 16))
    for trial, value, last in ((good, 0.6, "CONTINUE"), (weak, 0.4, "STOP")):
        scheduler.on_trial_add(None, trial)
        for epoch in range(1, 13):
            assert scheduler.on_trial_result(controller, trial, result(epoch, 0.99)) == "CONTINUE"
        assert scheduler.on_trial_result(controller, trial, result(13, value)) == last


@pytest.mark.parametrize("grace", [0, 0.0, 1.0, 1.5, True, "3", -1, 100_001])
def test_a_grace_that_is_neither_epochs_nor_a_share_is_refused(grace: Any) -> None:
    with pytest.raises(SpaceError, match=r"`scheduler.*grace`: must be a whole number of epochs"):
        cirl({"kind": "asha", "grace": grace})


def test_a_grace_longer_than_the_last_phase_is_noted() -> None:
    assert cirl({"kind": "asha", "grace": 7}).notes == ()
    (note,) = cirl({"kind": "asha", "grace": 8}).notes
    assert note.endswith("`scheduler.grace` is 8 and a trial's last phase has 8 epochs: none will be stopped")


def test_a_trial_longer_than_the_paper_s_runs_to_its_own_end() -> None:
    plain = {
        "recipe": "small_unet", "objective": {"metric": "val/f1", "mode": "max"},
        "scheduler": {"kind": "asha", "grace": 0.25}, "space": {"epochs": {"int": [6, 48]}},
    }  # fmt: skip
    space = load_text(yaml.safe_dump(plain), source="f")
    assert space.longest == 48
    scheduler = scheduler_for(space, epochs=space.longest, earlier=[])
    trial = stub(1, phase=range(48))
    told = {scheduler.on_trial_result(None, trial, result(epoch, 0.5)) for epoch in range(1, 49)}
    assert told == {"CONTINUE"}
