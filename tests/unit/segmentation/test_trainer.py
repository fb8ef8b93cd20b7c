"""Training: repeatable to the bit, resumable from any step after any death; what of it stays on the disk."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from fissura.core.errors import DataError, Diverged, Interrupted
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.losses import BCE, DiceBCE
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.records.run_files import read_manifest
from fissura.segmentation.fit import fit
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import (
    SGD,
    Adam,
    ConstantRate,
    Cosine,
    Decay,
    Phase,
    Plateau,
    Polynomial,
    Recipe,
)
from fissura.segmentation.trainer import Trainer
from fissura.segmentation.validation import validate
from fissura.training.checkpoint import Progress, TrainingState, load_weights, read_progress
from fissura.training.runtime import LocalRuntime

TIMES = {"seconds", "images_per_second", "wait_share", "latency_ms"}
CURVES = "tensorboard/events.out.tfevents.0.fissura"
STEPS = 4  # of an epoch of the set below, in batches of 3


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three validation images of 48x40 pixels."""
    folder = tmp_path_factory.mktemp("trainer") / "set"
    write(SyntheticSpec(train=6, val=3, test=1, height=48, width=40), folder)
    return folder


@pytest.fixture(scope="session")
def data(drawn: Path) -> PreparedData:
    return prepare([parse_dataset(f"synthetic:{drawn}")], resize=Native(), directory=drawn.with_name("cache"))


def tiny(**values: Any) -> Recipe:
    """Two phases that differ in loss, optimizer and schedule."""
    base = Recipe(
        name="tiny",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=32, per_image=2),
            augmentation=Augmentation(horizontal_flip=0.5, rotate_90=0.5, gaussian_noise=0.2),
            batch_size=3,
            normalisation="unit",
        ),
        model=UNet(width=4, depth=2),
        epochs=4,
        phases=(
            Phase(name="first", loss=BCE(), optimizer=SGD(lr=0.05), schedule=Plateau(patience=0), until=0.5),
            Phase(name="second", loss=DiceBCE(), optimizer=Adam(lr=0.02), schedule=Cosine()),
        ),
        protocols=(Pixel(),),
    )
    return Recipe.model_validate({**base.model_dump(), **values})


def one_phase(**values: Any) -> tuple[Phase, ...]:
    return (Phase(**{"name": "train", "loss": DiceBCE(), **values}),)


class Stops(LocalRuntime):
    """A runtime that asks to stop after so many steps."""

    def __init__(self, *, after: int) -> None:
        super().__init__(device="cpu", cpus=1)
        self.left = after

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left == 0


def runtime() -> LocalRuntime:
    return LocalRuntime(device="cpu", cpus=1)


def train(recipe: Recipe, data: PreparedData, run: Path) -> Trainer:
    """Trains to the end, from what stands in `run`."""
    return finish(Trainer(recipe, data=data, run=run, runtime=runtime()))


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.step()
    return trainer


def outcome(trainer: Trainer) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """All that a training leaves but its times: the history of epochs, and the bits of the kept weights."""
    history = [
        {key: value for key, value in record.items() if key not in TIMES} for record in trainer.history
    ]
    weights = load_file(trainer.run / "weights.safetensors")
    return history, {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def files(run: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a run directory by its path there: when it changed last, and what it holds."""
    return {
        path.relative_to(run).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in run.rglob("*")
        if path.is_file()
    }


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    """The points (epoch, value) that TensorBoard shows of a run."""
    points = []
    for event in EventFileLoader(str(run / CURVES)).Load():
        points += [(event.step, tensor.float_val[0]) for tensor in tensors_of(event, name)]
    return points


def tensors_of(event: Any, name: str) -> list[Any]:
    return [value.tensor for value in event.summary.value if value.tag == name]


@pytest.fixture(scope="session")
def whole(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A training of `tiny` that nothing interrupted."""
    return train(tiny(), data, tmp_path_factory.mktemp("runs") / "whole")


VICTIM = """
import json, os, resource, signal, sys
from pathlib import Path
from fissura.core.errors import ResourceError
from fissura.data.cache import PreparedData
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Recipe
from fissura.training.runtime import LocalRuntime
from fissura.segmentation.trainer import Trainer

recipe = Recipe.load(json.loads(sys.argv[1]), source="argument")
data = PreparedData.open(Path(sys.argv[2]), sys.argv[3])
place, steps = Path(sys.argv[4]), int(sys.argv[5])
runtime = LocalRuntime(device="cpu", cpus=1)

def files():
    return {path: path.read_bytes() for path in (place / "full").rglob("*") if path.is_file()}

trainer = Trainer(recipe, data=data, run=place / "full", runtime=runtime)
trainer.step()
before, unlimited = files(), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
try:
    trainer.step()
except ResourceError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
print("whole" if files() == before else "torn", flush=True)

def should_stop(left=[steps]):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

runtime.should_stop = should_stop
trainer = Trainer(recipe, data=data, run=place / "killed", runtime=runtime)
while not trainer.finished:
    trainer.step()
"""


@pytest.fixture(scope="session")
def victim(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another process left: the run `full`, whose disk was full in its second epoch, and the run
    `killed`, which died in the middle of its third. `said` is what the process printed.
    """
    place = tmp_path_factory.mktemp("victim")
    arguments = [json.dumps(tiny().plain()), str(data.directory), data.digest, str(place), str(2 * STEPS + 2)]
    command = [sys.executable, "-W", "error", "-c", VICTIM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (place / "said").write_text(done.stdout)
    return place


class TestRepetition:
    def test_of_a_seed_gives_the_same_bits(self, data: PreparedData, whole: Trainer, tmp_path: Path) -> None:
        torch.manual_seed(123)
        assert outcome(train(tiny(), data, tmp_path / "run")) == outcome(whole)

    def test_with_another_seed_gives_another_training(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        history, weights = outcome(train(tiny(seed=1), data, tmp_path / "run"))
        assert all(
            mine["train/loss"] != theirs["train/loss"]
            for mine, theirs in zip(history, outcome(whole)[0], strict=True)
        )
        assert weights != outcome(whole)[1]


class TestResuming:
    @pytest.mark.parametrize("after", [1, STEPS - 1, STEPS, STEPS + 2, 2 * STEPS, 3 * STEPS - 1, 4 * STEPS])
    def test_after_any_step_changes_no_bit(
        self, data: PreparedData, whole: Trainer, tmp_path: Path, after: int
    ) -> None:
        trainer = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=Stops(after=after))
        epoch, step = divmod(after - 1, STEPS)
        with pytest.raises(Interrupted, match=f"after step {step + 1} of epoch {epoch + 1}$"):
            finish(trainer)
        assert outcome(train(tiny(), data, tmp_path / "run")) == outcome(whole)

    def test_after_every_epoch_changes_no_bit(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        for epoch in range(1, tiny().epochs + 1):
            trainer = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=runtime())
            assert trainer.step()["epoch"] == epoch
        assert outcome(trainer) == outcome(whole)

    def test_after_every_step_changes_no_bit(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        stops = 0
        while True:
            trainer = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=Stops(after=1))
            if trainer.finished:
                break
            try:
                trainer.step()
            except Interrupted:
                stops += 1
        assert stops == tiny().epochs * STEPS
        assert outcome(trainer) == outcome(whole)

    def test_after_kill_9_changes_no_bit(self, data: PreparedData, whole: Trainer, victim: Path) -> None:
        run = victim / "killed"
        assert read_progress(run / "state.safetensors")[0].epoch == 2
        trainer = train(tiny(), data, run)
        assert outcome(trainer) == outcome(whole)
        losses = [(record["epoch"], pytest.approx(record["val/loss"])) for record in trainer.history]
        assert curve(run, "val/loss") == losses, "TensorBoard shows each epoch once"

    def test_after_a_full_disk_changes_no_bit(self, data: PreparedData, whole: Trainer, victim: Path) -> None:
        assert outcome(train(tiny(), data, victim / "full")) == outcome(whole)

    def test_after_death_between_weights_and_state_changes_no_bit(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        trainer = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=runtime())
        trainer.step()
        state = tmp_path / "run" / "state.safetensors"
        before = state.read_bytes()
        trainer.step()
        state.write_bytes(before)
        assert outcome(train(tiny(), data, tmp_path / "run")) == outcome(whole)

    def test_after_death_at_the_end_finds_the_run_finished(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        run = Path(shutil.copytree(whole.run, tmp_path / "run"))
        Trainer(tiny(), data=data, run=tmp_path / "other", runtime=runtime()).step()
        shutil.copy(tmp_path / "other" / "state.safetensors", run)
        assert Trainer(tiny(), data=data, run=run, runtime=runtime()).finished
        assert {name: content for name, (_, content) in files(run).items()} == {
            name: content for name, (_, content) in files(whole.run).items()
        }

    def test_clears_what_a_killed_writer_left(self, data: PreparedData, tmp_path: Path) -> None:
        run = tmp_path / "run"
        run.mkdir()
        (run / ".state.safetensors.0123abcd.tmp").write_bytes(b"half")
        (run / ".weights.safetensors.0123abcd.tmp").write_bytes(b"half")
        Trainer(tiny(), data=data, run=run, runtime=runtime()).step()
        assert set(files(run)) == {"recipe.json", "weights.safetensors", "state.safetensors", CURVES}

    @pytest.mark.parametrize(
        "tear",
        [
            lambda whole: whole[: len(whole) // 2],
            lambda whole: whole[:100],
            lambda whole: b"",
            lambda whole: bytes(len(whole)),
            lambda whole: whole.replace(b'\\"history\\": [', b'\\"history\\": ]'),
            lambda whole: whole.replace(b'\\"history\\"', b'\\"hystory\\"'),
        ],
        ids=["half", "header only", "empty", "zeros", "no JSON", "a field lost"],
    )
    def test_of_a_torn_state_costs_its_epochs_and_not_the_run(
        self, data: PreparedData, whole: Trainer, tmp_path: Path, tear: Callable[[bytes], bytes]
    ) -> None:
        run = tmp_path / "run"
        Trainer(tiny(), data=data, run=run, runtime=runtime()).step()
        state = run / "state.safetensors"
        torn = tear(state.read_bytes())
        assert torn != state.read_bytes()
        state.write_bytes(torn)
        trainer = Trainer(tiny(), data=data, run=run, runtime=runtime())
        assert trainer.progress == Progress()
        assert outcome(train(tiny(), data, run)) == outcome(whole)

    def test_needs_no_pretrained_weights_again(
        self, data: PreparedData, whole: Trainer, tmp_path: Path
    ) -> None:
        start = shutil.copy(whole.run / "weights.safetensors", tmp_path / "start.safetensors")
        recipe = tiny(model=UNet(width=4, depth=2, weights=str(start)))
        Trainer(recipe, data=data, run=tmp_path / "run", runtime=runtime()).step()
        Path(start).unlink()
        assert train(recipe, data, tmp_path / "run").progress.epoch == 4


class TestAFinishedRun:
    def test_is_not_trained_again(self, data: PreparedData, whole: Trainer) -> None:
        before = files(whole.run)
        again = Trainer(tiny(), data=data, run=whole.run, runtime=runtime())
        assert again.finished
        assert again.kept == whole.kept
        assert outcome(again) == outcome(whole)
        assert files(whole.run) == before

    def test_holds_these_files_and_no_pickle(self, drawn: Path, data: PreparedData, tmp_path: Path) -> None:
        fit(
            tiny(),
            datasets=[parse_dataset(f"synthetic:{drawn}")],
            run=tmp_path / "run",
            cache=data.directory,
            runtime=runtime(),
        )
        written = files(tmp_path / "run")
        assert written.keys() == {
            "recipe.json",
            "weights.safetensors",
            "metrics.json",
            "manifest.json",
            CURVES,
        }
        for name in ("recipe.json", "metrics.json", "manifest.json"):
            json.loads(written[name][1])
        load_file(tmp_path / "run" / "weights.safetensors")
        assert [step for step, _ in curve(tmp_path / "run", "val/loss")] == [1, 2, 3, 4]

    def test_killed_before_its_manifest_gets_it_next_time(
        self, drawn: Path, whole: Trainer, tmp_path: Path
    ) -> None:
        run = Path(shutil.copytree(whole.run, tmp_path / "run"))
        before, datasets = files(run), [parse_dataset(f"synthetic:{drawn}")]
        manifest = fit(tiny(), datasets=datasets, run=run, cache=drawn.with_name("cache"), runtime=runtime())
        assert read_manifest(run) == manifest
        assert {name: each for name, each in files(run).items() if name != "manifest.json"} == before

    def test_tells_what_it_was(self, drawn: Path, data: PreparedData, whole: Trainer, tmp_path: Path) -> None:
        seen: list[int] = []
        datasets = [parse_dataset(f"synthetic:{drawn}")]

        def again() -> Any:
            return fit(
                tiny(),
                datasets=datasets,
                run=tmp_path / "run",
                cache=data.directory,
                runtime=runtime(),
                on_epoch=lambda record: seen.append(record["epoch"]),
            )

        manifest = again()
        assert seen == [1, 2, 3, 4]
        assert (manifest.run_id, manifest.recipe, manifest.epochs) == ("run", tiny().plain(), 4)
        assert manifest.best_epoch == whole.progress.best_epoch
        weights = load_file(tmp_path / "run" / "weights.safetensors")
        trained = {
            name: tensor
            for name, tensor in weights.items()
            if "running" not in name and "tracked" not in name
        }
        assert manifest.parameters == sum(tensor.numel() for tensor in trained.values())
        assert manifest.data.datasets == (datasets[0].plain(),)
        assert manifest.seconds == pytest.approx((manifest.finished - manifest.started).total_seconds())
        before = files(tmp_path / "run")
        assert again() == manifest
        assert seen == [1, 2, 3, 4]
        assert files(tmp_path / "run") == before

    def test_is_missed_where_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no finished run .* train it"):
            read_manifest(tmp_path)
        (tmp_path / "runs").mkdir()
        with pytest.raises(DataError, match="below its runs/"):
            read_manifest(tmp_path)


class TestKeeping:
    def test_keeps_the_weights_of_the_lowest_validation_loss(
        self, data: PreparedData, tmp_path: Path
    ) -> None:
        recipe = tiny(epochs=40, phases=one_phase(optimizer=Adam(lr=0.05), early_stopping=1))
        trainer = train(recipe, data, tmp_path / "run")
        losses = [record["val/loss"] for record in trainer.history]
        assert trainer.progress.best_epoch == trainer.progress.epoch - 1, "the recipe shows the case no more"
        assert losses[trainer.progress.best_epoch - 1] == trainer.kept["val/loss"] == min(losses)
        network = recipe.model.build()
        load_weights(network, tmp_path / "run" / "weights.safetensors")
        objective = PhaseObjective(network, DiceBCE())
        judged = validate(objective, data=data, recipe=recipe, device=torch.device("cpu"))
        for name in judged.keys() - TIMES:
            assert judged[name] == trainer.kept[name]

    def test_keeps_the_model_of_the_last_phase(self, data: PreparedData, tmp_path: Path) -> None:
        heavy = Phase(name="second", loss=DiceBCE(dice_weight=100), optimizer=SGD(lr=1e-6))
        recipe = tiny(phases=(*one_phase(until=0.5), heavy))
        trainer = train(recipe, data, tmp_path / "run")
        losses = [record["val/loss"] for record in trainer.history]
        assert max(losses[:2]) < min(losses[2:]), "the recipe no longer shows the case"
        assert [record["phase"] for record in trainer.history] == ["train", "train", "second", "second"]
        assert trainer.progress.best_epoch == 3 + losses[2:].index(min(losses[2:]))
        assert trainer.kept["epochs"] == 4
        assert trainer.kept["epoch"] == trainer.progress.best_epoch

    def test_has_nothing_before_the_first_epoch(self, data: PreparedData, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no epoch has been finished"):
            _ = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=runtime()).kept

    def test_holds_two_checkpoints_at_most(self, data: PreparedData, tmp_path: Path) -> None:
        trainer = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=runtime())
        while True:
            trainer.step()
            if trainer.finished:
                break
            sizes = {name: len(content) for name, (_, content) in files(trainer.run).items()}
            assert set(sizes) == {"recipe.json", "weights.safetensors", "state.safetensors", CURVES}
            # the network, Adam's two moments, and a little
            assert sizes["state.safetensors"] < 3 * sizes["weights.safetensors"] + 40_000
        assert set(files(trainer.run)) == {"recipe.json", "weights.safetensors", "metrics.json", CURVES}


STILL: dict[str, Any] = {
    # a rate so small that no weight of 32 bits moves, so the validation loss is flat from the first epoch
    "model": UNet(width=4, depth=2, normalisation="none"),
}


class TestEnding:
    @pytest.mark.parametrize("patience", [1, 3])
    def test_early_after_so_many_epochs_without_a_lower_loss(
        self, data: PreparedData, tmp_path: Path, patience: int
    ) -> None:
        phases = one_phase(optimizer=SGD(lr=1e-30), early_stopping=patience)
        trainer = train(tiny(**STILL, epochs=9, phases=phases), data, tmp_path / "run")
        assert len({record["val/loss"] for record in trainer.history}) == 1
        assert (trainer.progress.epoch, trainer.progress.best_epoch) == (1 + patience, 1)
        assert trainer.progress.finished == "early stopping"

    def test_early_in_one_phase_begins_the_next(self, data: PreparedData, tmp_path: Path) -> None:
        still = Phase(name="still", loss=BCE(), optimizer=SGD(lr=1e-30), until=0.8, early_stopping=1)
        trainer = train(tiny(**STILL, epochs=10, phases=(still, *one_phase())), data, tmp_path / "run")
        assert [record["phase"] for record in trainer.history] == ["still", "still", "train", "train"]
        assert trainer.progress.finished == "all epochs done"

    @pytest.mark.parametrize(
        ("schedule", "share"),
        [
            (ConstantRate(), [1, 1, 1, 1]),
            (Plateau(factor=0.1, patience=1), [1, 1, 1, 0.1]),
            (Cosine(), [1, 0.8535533905932737, 0.5, 0.14644660940672624]),
        ],
    )
    def test_the_schedule_reads_the_validation_loss_once_an_epoch(
        self, data: PreparedData, tmp_path: Path, schedule: Any, share: list[float]
    ) -> None:
        phases = one_phase(optimizer=SGD(lr=1e-30), schedule=schedule)
        trainer = train(tiny(**STILL, phases=phases), data, tmp_path / "run")
        assert [record["lr"] for record in trainer.history] == pytest.approx([1e-30 * each for each in share])

    def test_a_decay_moves_with_the_steps_of_all_epochs(self, data: PreparedData, tmp_path: Path) -> None:
        """Four steps an epoch: the sixth and the twelfth halve the rate."""
        phases = one_phase(optimizer=SGD(lr=1e-30), schedule=Decay(factor=0.5, steps=6))
        trainer = train(tiny(**STILL, phases=phases), data, tmp_path / "run")
        assert [record["lr"] for record in trainer.history] == [1e-30, 5e-31, 2.5e-31, 2.5e-31]

    def test_a_polynomial_moves_with_the_steps_of_all_epochs(
        self, data: PreparedData, tmp_path: Path
    ) -> None:
        phases = one_phase(optimizer=SGD(lr=1e-30), schedule=Polynomial(power=1.0))
        trainer = train(tiny(**STILL, phases=phases), data, tmp_path / "run")
        assert [record["lr"] for record in trainer.history] == pytest.approx([7.5e-31, 5e-31, 2.5e-31, 0])


class TestDivergence:
    @pytest.mark.parametrize(
        ("batch_size", "message"),
        [
            (3, r"the training loss of step 2 of epoch 1 is nan \(learning rate 10\)"),
            (12, "the validation loss of epoch 1 is nan"),
        ],
    )
    def test_names_the_epoch_and_the_step(
        self, data: PreparedData, tmp_path: Path, batch_size: int, message: str
    ) -> None:
        recipe = tiny(
            data=tiny().data.model_copy(update={"batch_size": batch_size}),
            model=UNet(width=4, depth=4, normalisation="none"),
            phases=one_phase(optimizer=Adam(lr=10)),
        )
        trainer = Trainer(recipe, data=data, run=tmp_path / "run", runtime=runtime())
        with pytest.raises(Diverged, match=message):
            trainer.step()
        assert set(files(trainer.run)) == {"recipe.json", CURVES}


class TestData:
    @pytest.mark.parametrize(
        ("split", "counts"),
        [("train", {"train": 0, "val": 2, "test": 1}), ("val", {"train": 1, "val": 0, "test": 0})],
    )
    def test_without_images_to_train_or_validate_on_is_refused(
        self, tmp_path: Path, split: str, counts: dict[str, int]
    ) -> None:
        write(SyntheticSpec(**counts, height=48, width=48), tmp_path / "set")
        few = [parse_dataset(f"synthetic:{tmp_path / 'set'}")]
        with pytest.raises(DataError, match=f"no {split} images"):
            fit(tiny(), datasets=few, run=tmp_path / "run", cache=tmp_path / "cache", runtime=runtime())
        assert not (tmp_path / "run").exists()

    def test_that_is_damaged_is_named_before_anything_is_written(self, drawn: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(drawn, tmp_path / "set"))
        damaged = [copy / "images/train/0001.png", copy / "masks/val/0000.png"]
        damaged[0].write_bytes(damaged[0].read_bytes()[:200])
        Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)).save(damaged[1])
        datasets = [parse_dataset(f"synthetic:{copy}")]
        with pytest.raises(DataError) as caught:
            fit(tiny(), datasets=datasets, run=tmp_path / "run", cache=tmp_path / "cache", runtime=runtime())
        assert [any(str(path) in line for line in caught.value.problems) for path in damaged] == [True, True]
        assert not (tmp_path / "run").exists()


class TestState:
    def network(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return UNet(width=4, depth=1).build()

    @pytest.mark.parametrize("optimizer", [Adam(lr=0.01), SGD(lr=0.01), SGD(lr=0.01, momentum=0)], ids=str)
    def test_brings_back_the_next_step_and_the_random_numbers(self, tmp_path: Path, optimizer: Any) -> None:
        path, history = tmp_path / "state.safetensors", [{"epoch": 1, "val/loss": 0.1 + 0.2}]
        progress = Progress(epoch=1, batch=2, loss_sum=1 / 3)

        def begun() -> TrainingState:
            network = self.network()
            built = optimizer.build(list(network.parameters()))
            schedule = Plateau(patience=0).build(built, epochs=9)
            return TrainingState(path, network, built, schedule, torch.amp.GradScaler("cpu", enabled=False))

        def advance(state: TrainingState) -> list[float]:
            seen, schedule = [], cast(Any, state.schedule)
            for _ in range(3):
                loss = state.objective(torch.rand(2, 3, 8, 8)).square().mean()
                state.optimizer.zero_grad()
                loss.backward()
                state.optimizer.step()
                schedule.step(1.0)
                seen += [loss.item(), state.optimizer.param_groups[0]["lr"]]
            return seen

        first, other = begun(), begun()
        advance(first)
        first.save(progress, history)
        expected = advance(first)
        torch.manual_seed(99)
        other.load()
        assert advance(other) == expected
        assert read_progress(path) == (progress, history)

    def test_is_not_read_from_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        save_file({"a": torch.zeros(1)}, path)
        with pytest.raises(DataError, match="state"):
            read_progress(path)


def test_a_full_disk_is_named_and_leaves_the_files_whole(victim: Path) -> None:
    error, files_after = (victim / "said").read_text().splitlines()
    assert error.startswith(f"{victim / 'full'}: cannot be written (")
    assert "File too large" in error
    assert "free some space there" in error
    assert files_after == "whole"
