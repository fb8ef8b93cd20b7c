"""What the kept model is chosen by: the recipe says, and a trial's value is that of the epoch it keeps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from fissura.core.spec import digest
from fissura.data.augmentation import STRENGTHS
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.progress import SearchProgress
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.trial import epoch_result
from fissura.losses import BCE
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.recipes import RECIPES, load_recipe
from fissura.records.trial_attributes import CURVE
from fissura.reports.plots import _curves
from fissura.segmentation import trainer as module
from fissura.segmentation.recipe import Phase, Plateau, Recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces.load import load_space
from fissura.studies.plan import Request, make_plan
from fissura.studies.study import Study
from fissura.training.runtime import LocalRuntime

# the loss falls to the end, F1 does not: the case of the search that kept 0.731
LOSSES = (0.60, 0.50, 0.40, 0.30)
F1 = (0.500, 0.760, 0.740, 0.731)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "set"
    write(SyntheticSpec(train=1, val=1, test=1, height=48, width=48), folder)
    return folder


@pytest.fixture(scope="module")
def data(drawn: Path) -> PreparedData:
    return prepare([parse_dataset(f"synthetic:{drawn}")], resize=Native(), directory=drawn.with_name("cache"))


def recipe_of(*phases: Phase, **values: Any) -> Recipe:
    return Recipe(
        name="tiny",
        data=Pipeline(resize=Native(), crop=RandomCrop(size=32), batch_size=1, normalisation="unit"),
        model=UNet(width=4, depth=2),
        phases=phases or (Phase(name="train", loss=BCE()),),
        protocols=(Pixel(),),
        **{"epochs": len(LOSSES), **values},
    )


Begin = Callable[..., Trainer]


@pytest.fixture
def begin(data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begins, or goes on with, a training whose epochs are judged as scripted."""

    def begin(recipe: Recipe, *, losses: Sequence[float] = LOSSES, f1: Sequence[float] = F1) -> Trainer:
        trainer = Trainer(recipe, data=data, run=tmp_path / "run", runtime=LocalRuntime(device="cpu", cpus=1))

        def judged(*_: Any, **__: Any) -> dict[str, float]:
            epoch = trainer.progress.epoch
            return {"val/loss": losses[epoch], "val/f1": f1[epoch], "val/dice": 1 - f1[epoch]}

        monkeypatch.setattr(module, "validate", judged)
        return trainer

    return begin


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.step()
    return trainer


class TestTraining:
    @pytest.mark.parametrize(
        ("kept_by", "kept"), [(None, 4), ("val/loss", 4), ("val/f1", 2), ("val/dice", 1)]
    )
    def test_keeps_the_epoch_that_the_recipe_asks_for(
        self, begin: Begin, kept_by: str | None, kept: int
    ) -> None:
        trainer = finish(begin(recipe_of(kept_by=kept_by)))
        assert trainer.progress.best_epoch == kept
        assert trainer.kept["val/f1"] == F1[kept - 1]
        assert [record["val/f1"] for record in trainer.history] == list(F1)

    def test_keeps_the_weights_of_that_epoch(self, begin: Begin, tmp_path: Path) -> None:
        trainer, weights = begin(recipe_of(kept_by="val/f1")), []
        while not trainer.finished:
            trainer.step()
            weights.append((tmp_path / "run" / "weights.safetensors").read_bytes())
        assert weights[0] != weights[1] == weights[2] == weights[3]

    def test_of_equals_keeps_the_one_of_lower_loss_and_then_the_first(self, begin: Begin) -> None:
        trainer = begin(recipe_of(kept_by="val/f1"), losses=(0.5, 0.4, 0.4, 0.6), f1=(0.0,) * 4)
        assert finish(trainer).progress.best_epoch == 2

    def test_the_value_so_far_never_falls_within_a_phase(self, begin: Begin) -> None:
        trainer, values = begin(recipe_of(kept_by="val/f1")), []
        while not trainer.finished:
            trainer.step()
            values.append(trainer.kept["val/f1"])
        assert values == [0.5, 0.76, 0.76, 0.76]

    def test_chooses_anew_in_each_phase(self, begin: Begin) -> None:
        phases = (Phase(name="first", loss=BCE(), until=0.5), Phase(name="second", loss=BCE()))
        trainer = begin(recipe_of(*phases, kept_by="val/f1"), f1=(0.8, 0.9, 0.3, 0.2))
        assert finish(trainer).progress.best_epoch == 3
        assert [record["kept_epoch"] for record in trainer.history] == [1, 2, 3, 3]

    def test_early_stopping_and_the_plateau_watch_the_loss_whatever_is_kept(self, begin: Begin) -> None:
        phase = Phase(name="train", loss=BCE(), schedule=Plateau(factor=0.5, patience=0), early_stopping=2)
        rising = (0.5, 0.6, 0.7, 0.8)
        trainer = finish(begin(recipe_of(phase, kept_by="val/f1"), losses=rising, f1=(0.1, 0.2, 0.3, 0.4)))
        assert trainer.progress.finished == "early stopping"
        assert (trainer.progress.epoch, trainer.progress.best_epoch) == (3, 3)
        assert [record["lr"] for record in trainer.history] == [1e-3, 1e-3, 5e-4]

    def test_goes_on_with_the_choice_of_the_state_on_disk(self, begin: Begin) -> None:
        begin(recipe_of(kept_by="val/f1")).step()
        assert begin(recipe_of(kept_by="val/f1")).step()["kept_epoch"] == 2
        assert begin(recipe_of(kept_by="val/f1")).step()["kept_epoch"] == 2


class TestRecipes:
    def test_one_kept_by_the_loss_has_the_name_of_earlier_versions(self) -> None:
        plain = recipe_of().plain()
        del plain["kept_by"], plain["smallest_crack"]  # as earlier versions wrote it
        for strength in STRENGTHS:
            del plain["data"]["augmentation"][strength]
        old = Recipe.load(plain, source="recipe.json")
        assert old == recipe_of()
        names = {recipe_of(kept_by=name).run_id("c" * 16) for name in (None, "val/loss")}
        assert names == {digest({"recipe": plain, "content": "c" * 16})[:12]}
        assert recipe_of(kept_by="val/f1").run_id("c" * 16) not in names
        assert recipe_of(kept_by="val/f1").configuration != recipe_of().configuration

    def test_say_what_their_papers_say(self) -> None:
        said = {name: made.kept_by for name in RECIPES if isinstance(made := load_recipe(name), Recipe)}
        assert said == {
            "attention_resunet": None, "cirl": None, "crackformer": None, "deepcrack_liu": None,
            "deepcrack_zou": None, "deeplab_focal": None, "dru": None, "frangi": None, "hrsegnet": None,
            "jtfn": None, "niblack": None, "resenc": None, "sato": None, "sauvola": None, "segformer": None,
            "small_unet": None, "unet_backbones": "val/loss", "vgg_unet": None,
        }  # fmt: skip


class TestSearch:
    def plan(self, tmp_path: Path, drawn: Path, space: str, **more: Any) -> Any:
        request = Request(
            space=space, data=(f"synthetic:{drawn}",), storage=tmp_path, trials=2, name=None,
            profile="none", fixed={}, seed=0, begin="new", extend=0, **more,
        )  # fmt: skip
        return make_plan(request, tmp_path / "cache", profile="cpu")

    @pytest.mark.parametrize(
        ("objectives", "kept_by"),
        [
            ((), "val/f1"), (("val/iou",), "val/iou"), (("latency_ms", "val/dice", "val/f1"), "val/dice"),
            (("val/loss",), "val/loss"), (("parameters",), None),
        ],
    )  # fmt: skip
    def test_keeps_by_its_first_objective_that_is_a_validation_metric(
        self, tmp_path: Path, drawn: Path, objectives: tuple[str, ...], kept_by: str | None
    ) -> None:
        study, plan, space = self.plan(tmp_path, drawn, "small_unet", objectives=objectives)
        assert space.recipe_for(space.paper_point()).kept_by == kept_by
        study.write(plan)
        again = Study(study.path).plan().load_space(study.path)
        assert again.recipe_for({}).kept_by == kept_by

    def test_its_papers_own_point_keeps_what_the_paper_says(self, tmp_path: Path, drawn: Path) -> None:
        _, _, space = self.plan(tmp_path, drawn, "unet_backbones")
        assert space.recipe_for(space.paper_point()).kept_by == "val/loss"
        other = space.completed({"phases.train.optimizer.lr": 2e-3})
        assert space.recipe_for(other).kept_by == "val/dice"

    def test_one_that_sets_it_is_obeyed(self) -> None:
        space = load_space("small_unet", fixed={"kept_by": "val/loss"}).kept_by_objective()
        assert space.recipe_for(space.paper_point()).kept_by == "val/loss"

    def test_a_study_of_an_earlier_version_goes_on_as_it_began(self, tmp_path: Path, drawn: Path) -> None:
        study, plan, _ = self.plan(tmp_path, drawn, "small_unet")
        study.write(plan)
        plain = json.loads((study.path / "study.json").read_text())
        del plain["kept_by"]
        (study.path / "study.json").write_text(json.dumps(plain))
        space = Study(study.path).plan().load_space(study.path)
        assert space.recipe_for({}) == load_recipe("small_unet")


class TestTrial:
    """From a training to the study: what ASHA and Optuna are told, and what people are shown."""

    @pytest.fixture
    def search(self, tmp_path: Path) -> StudySearch:
        return StudySearch(
            load_space("small_unet").kept_by_objective(),
            storage=optuna.storages.InMemoryStorage(),
            study_name="study",
            seed=0,
            content="c" * 16,
            context={},
            stop_requested=lambda: False,
        )

    def results(self, trainer: Trainer) -> list[dict[str, Any]]:
        told, results = 0, []
        while not trainer.finished:
            trainer.step()
            standing = {"interrupted": False, "failure": ""}
            results.append(standing | epoch_result(trainer, reported=told))
            told = len(trainer.history)
        return results

    def test_is_worth_its_best_epoch_and_shows_each_epochs_own_value(
        self, begin: Begin, search: StudySearch
    ) -> None:
        search.suggest("a")
        results = self.results(begin(recipe_of(kept_by="val/f1")))
        assert [result["val/f1"] for result in results] == [0.5, 0.76, 0.76, 0.76]
        for result in results:
            search.on_trial_result("a", result)
        search.on_trial_complete("a", results[-1])
        (trial,) = search.study.trials
        # fails on the code before: 0.731
        assert trial.value == 0.760
        assert trial.intermediate_values == {1: 0.5, 2: 0.76, 3: 0.76, 4: 0.76}
        assert trial.user_attrs[CURVE] == {"epochs": [1, 2, 3, 4], "values": list(F1), "kept": 2}
        (line,) = _curves(search.study, "val/f1").data
        assert list(line.y) == list(F1)
        assert [bool(size) for size in line.marker.size] == [False, True, False, False]

    def test_that_goes_on_in_another_process_tells_its_earlier_epochs(
        self, begin: Begin, search: StudySearch
    ) -> None:
        begin(recipe_of(kept_by="val/f1")).step()
        search.suggest("a")
        results = self.results(begin(recipe_of(kept_by="val/f1")))
        for result in results:
            search.on_trial_result("a", result)
        search.on_trial_complete("a", results[-1])
        assert search.study.trials[0].user_attrs[CURVE]["values"] == list(F1)

    def test_is_logged_epoch_by_epoch_with_the_kept_one_marked(
        self, begin: Begin, search: StudySearch, tmp_path: Path
    ) -> None:
        search.suggest("a")
        progress = SearchProgress(search, Study(tmp_path), total=1, say=print, waiting=dict)
        for result in self.results(begin(recipe_of(kept_by="val/f1"))):
            progress.on_trial_result(0, [], SimpleNamespace(trial_id="a"), result)
        log = (tmp_path / "search.log").read_text().splitlines()
        assert [line.split(" ", 1)[1] for line in log] == [
            "trial 0 epoch 1: val/f1 = 0.5 (kept)",
            "trial 0 epoch 2: val/f1 = 0.76 (kept)",
            "trial 0 epoch 3: val/f1 = 0.74 (kept: that of 2, 0.76)",
            "trial 0 epoch 4: val/f1 = 0.731 (kept: that of 2, 0.76)",
        ]

    def test_counts_no_epoch_where_it_is_interrupted(
        self, begin: Begin, search: StudySearch, tmp_path: Path
    ) -> None:
        search.suggest("a")
        progress = SearchProgress(search, Study(tmp_path), total=1, say=print, waiting=dict)
        first, *_ = self.results(begin(recipe_of(kept_by="val/f1")))
        stopped = {"epoch": 0, "failure": "", "interrupted": True, "done": True}
        for result in (first, stopped):
            progress.on_trial_result(0, [], SimpleNamespace(trial_id="a"), result)
        assert progress.status_line.gauges.epochs == 1
        last = (tmp_path / "search.log").read_text().splitlines()[-1]
        assert last.endswith("trial 0 is interrupted; search --resume continues it")
