"""A trial actor in this process: each epoch a result, each error one too, and then the next trial."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fissura.data.content import content_digest
from fissura.data.datasets import parse_datasets
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.preemption import NodeNotice, Preempted
from fissura.distributed.search.trial import TrialActor, TrialContext
from fissura.distributed.stopping import StopFile
from fissura.recipes import load_recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces.fields import override

SMALL = {"model.width": 4, "model.depth": 2, "data.crop.size": 32, "epochs": 2}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TrialContext:
    folder = tmp_path_factory.mktemp("trial")
    images = folder / "images"
    write(SyntheticSpec(train=2, val=1, test=1, height=48, width=48, crack_width=(1.5, 4.0)), images)
    datasets = parse_datasets([f"synthetic:{images}"])
    return TrialContext(
        study=folder, datasets=datasets, content=content_digest(datasets), cache=folder / "cache", cpus=1
    )


Begin = Callable[[dict[str, Any]], TrialActor]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Makes actors, and stops them when the test is over."""
    actors: list[TrialActor] = []

    def begin(config: dict[str, Any]) -> TrialActor:
        actors.append(TrialActor(config=config))
        return actors[-1]

    yield begin
    for actor in actors:
        actor.stop()


def config(context: TrialContext, *, run: str, **more: Any) -> dict[str, Any]:
    recipe = override(load_recipe("small_unet"), SMALL | more)
    return {"number": 1, "run_id": run, "recipe": recipe.plain(), "context": context.plain()}


def test_each_epoch_is_a_result_and_the_last_one_closes_the_run(context: TrialContext, begin: Begin) -> None:
    actor = begin(config(context, run="whole"))
    first, second = actor.train(), actor.train()
    assert [first["epoch"], second["epoch"]] == [1, 2]
    assert [first["done"], second["done"]] == [False, True]
    assert 0 <= second["val/f1"] <= 1
    assert second["finished"]
    assert (context.study / "runs" / "whole" / "manifest.json").is_file()

    again = begin(config(context, run="whole"))
    assert again.train()["val/f1"] == second["val/f1"], "a finished run is read, not trained"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "out of memory with one image",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory with one image",
        ),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory with one image"),
        (ZeroDivisionError("division by zero\nmore"), "ZeroDivisionError: division by zero"),
    ],
    ids=["gpu memory", "cpu memory", "numpy memory", "a bug"],
)
def test_what_a_training_raises_fails_its_trial_alone(
    context: TrialContext, begin: Begin, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def step(_: Trainer) -> None:
        raise error

    actor = begin(config(context, run="failing"))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        failed = actor.train()
    assert failed["done"]
    assert reason in failed["failure"]
    assert "\n" not in failed["failure"]

    assert actor.reset(config(context, run="next"))
    assert actor.train()["failure"] == "", "the same actor trains the next trial"


def test_an_actor_stops_when_the_study_is_asked_to_and_another_goes_on(
    context: TrialContext, begin: Begin
) -> None:
    stop = StopFile(context.study)
    stop.request()
    stopped = begin(config(context, run="stopped")).train()
    stop.clear()
    assert stopped["interrupted"]
    assert stopped["done"]
    assert (context.study / "runs" / "stopped" / "state.safetensors").is_file()

    actor = begin(config(context, run="stopped"))
    actor.train()
    last = actor.train()
    whole = begin(config(context, run="straight"))
    whole.train()
    assert last["val/loss"] == whole.train()["val/loss"], "bit for bit"


def test_a_trial_whose_node_is_taken_away_leaves_its_actor_and_goes_on_in_another(
    context: TrialContext, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = begin(config(context, run="moved"))
    # the notice comes while the first epoch trains: Ray's head is asked before it, and after each step
    answers = iter([False])
    monkeypatch.setattr(NodeNotice, "noticed", lambda _: next(answers, True))
    with pytest.raises(Preempted):
        actor.train()
    assert (context.study / "runs" / "moved" / "state.safetensors").is_file()
    with pytest.raises(Preempted):
        actor.train()
    monkeypatch.undo()

    other = begin(config(context, run="moved"))
    other.train()
    last = other.train()
    whole = begin(config(context, run="unmoved"))
    whole.train()
    assert last["val/loss"] == whole.train()["val/loss"], "bit for bit"


def test_a_trial_has_the_cpus_that_it_was_given(context: TrialContext, begin: Begin) -> None:
    torch.set_num_threads(2)
    begin(config(context, run="threads")).train()
    assert torch.get_num_threads() == 1
