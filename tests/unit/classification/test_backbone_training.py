"""Training of backbones: what it learns from, what it computes, how it goes on after any death."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, logsigmoid

from fissura.classification.backbone import (
    Backbone,
    BackboneTraining,
    Distillation,
    ImageChanges,
    TrainingImages,
    read_backbone,
    train_backbone,
    train_packed,
)
from fissura.classification.backbone_images import PackedImages, batches_of, pack, steps_of
from fissura.classification.distillation import Distilled
from fissura.classification.recipe import ClassifierRecipe
from fissura.core.errors import DataError, Diverged, ResourceError, SpecError, WeightsError
from fissura.core.spec import digest
from fissura.distributed.preflight import check_all_weights
from fissura.distributed.training import learn_backbone as learn
from fissura.models.backbones import resized
from fissura.models.weights import Hub
from fissura.spaces import load_space
from fissura.training.runtime import LocalRuntime

TRAINED = Backbone(kind="efficientnet_lite", weights="trained", input_size=32)
DISTILLED = TRAINED.model_copy(update={"weights": "distilled"})
SHORT = BackboneTraining(
    epochs=3,
    batch_size=8,
    lr=3e-3,
    distillation=Distillation(teacher="efficientnet_lite", discriminator_width=16),
)
KEPT = {"backbone.json", "weights.safetensors", "head.safetensors"}
HASHES = ("sha256", "head_sha256")
TIMES = ("seconds", "images_per_second")
CLASSES = ("none", "crack")


@pytest.fixture
def runtime() -> LocalRuntime:
    return LocalRuntime(device="cpu", cpus=1)


def picture(index: int) -> np.ndarray:
    """Grey noise; an odd index has a dark crack across it. Sizes differ."""
    random = np.random.default_rng(index)
    image = random.integers(130, 200, (32 + index % 5, 36, 3)).astype(np.uint8)
    if index % 2:
        image[14:18] //= 4
    return image


def given(
    count: int = 22, *, validation: int = 6, read: Callable[[int], np.ndarray] = picture
) -> TrainingImages:
    """`count` images, the last `validation` of them for validation."""
    return TrainingImages(
        read=read,
        labels=[index % 2 for index in range(count)],
        classes=CLASSES,
        train=range(count - validation),
        validation=range(count - validation, count),
        digest="0" * 16,
    )


def unreadable(index: int) -> np.ndarray:
    raise AssertionError(f"image {index} is read again")


def timeless(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in result["history"]]


class TestImages:
    def test_are_read_once_and_kept_in_the_size_of_the_backbone(self, tmp_path: Path) -> None:
        packed = pack(given(), size=32, directory=tmp_path)
        again = pack(given(read=unreadable), size=32, directory=tmp_path)
        assert packed.pixels.shape == (22, 32, 32, 3)
        assert np.array_equal(packed.pixels, again.pixels)
        for row in (0, 1, 21):
            exact = resized(torch.from_numpy(picture(row))[None], size=32)[0].permute(1, 2, 0).numpy() * 255
            assert np.abs(exact - packed.pixels[row]).max() <= 0.5 + 1e-3
        assert packed.labels.tolist() == [index % 2 for index in range(22)]
        assert (packed.train.tolist(), packed.validation.tolist()) == (list(range(16)), list(range(16, 22)))

    def test_of_another_set_are_packed_anew(self, tmp_path: Path) -> None:
        pack(given(), size=32, directory=tmp_path)
        assert pack(given(20), size=32, directory=tmp_path).pixels.shape == (20, 32, 32, 3)
        assert pack(given(20), size=40, directory=tmp_path).pixels.shape == (20, 40, 40, 3)
        (tmp_path / "images.npy").write_bytes(b"torn")
        assert pack(given(20), size=40, directory=tmp_path).pixels.shape == (20, 40, 40, 3)

    def test_that_cannot_be_read_are_left_out_by_name(self, tmp_path: Path) -> None:
        def read(index: int) -> np.ndarray:
            if index == 3:
                raise DataError("folder/003.jpg: cannot be decoded; replace it")
            return picture(index)[..., 0] if index == 20 else picture(index)

        packed = pack(given(read=read), size=32, directory=tmp_path)
        assert packed.unreadable == (
            "folder/003.jpg: cannot be decoded; replace it",
            "image 20: an image is uint8 [height, width, 3], not uint8 [32, 36]",
        )
        assert packed.indices.tolist() == [index for index in range(22) if index not in (3, 20)]
        assert (len(packed.train), len(packed.validation)) == (15, 5)
        assert packed.labels[packed.train].tolist() == [index % 2 for index in range(16) if index != 3]

    def test_of_one_class_teach_nothing(self, tmp_path: Path) -> None:
        one = TrainingImages(picture, [0] * 8, CLASSES, range(6), range(6, 8), "")
        with pytest.raises(DataError, match=r"two classes or more.* there are none: 6, crack: 0; add images"):
            pack(one, size=32, directory=tmp_path)

    def test_are_missed_by_their_class_when_none_of_it_can_be_read(self, tmp_path: Path) -> None:
        def read(index: int) -> np.ndarray:
            if index % 2:
                raise DataError(f"{index}.jpg: cannot be decoded")
            return picture(index)

        with pytest.raises(DataError, match="crack: 0") as caught:
            pack(given(read=read), size=32, directory=tmp_path)
        assert "1.jpg: cannot be decoded" in caught.value.problems

    @pytest.mark.parametrize(
        ("images", "problem"),
        [
            (TrainingImages(picture, [0, 1, 0], CLASSES, [0, 1], [1], ""), "image 1 is named twice"),
            (TrainingImages(picture, [0, 1, 0], CLASSES, [0, 1, 3], [], ""), "indices are 0 to 2, not 3"),
            (TrainingImages(picture, [0, 1, 2], CLASSES, [0, 1], [], ""), "labels are 0 to 1, not 2"),
            (TrainingImages(picture, [0, 0], ("none",), [0, 1], [], ""), "two classes or more"),
        ],
    )
    def test_with_a_mistake_in_their_lists_are_refused(self, images: TrainingImages, problem: str) -> None:
        with pytest.raises(DataError, match=problem):
            images.check()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    return pack(given(), size=32, directory=tmp_path_factory.mktemp("packed"))


class TestBatches:
    def drawn(self, packed: PackedImages, **where: int) -> list[tuple[np.ndarray, torch.Tensor]]:
        where = {"epoch": 0, "batch_size": 6, "seed": 0} | where
        return list(batches_of(packed, changes=ImageChanges(), **where))

    def test_hold_each_training_image_once_at_most(self, packed: PackedImages) -> None:
        batches = self.drawn(packed)
        assert [len(places) for places, _ in batches] == [6, 6] == [6] * steps_of(packed, batch_size=6)
        assert len(set(np.concatenate([places for places, _ in batches]).tolist())) == 12
        assert steps_of(packed, batch_size=100) == 1
        assert sorted(self.drawn(packed, batch_size=100)[0][0].tolist()) == list(range(16))

    def test_are_shared_by_workers_without_another_change(self, packed: PackedImages) -> None:
        alone = self.drawn(packed)
        for rank in (0, 1):
            shared = self.drawn(packed, rank=rank, world_size=2)
            for (places, pixels), (mine, part) in zip(alone, shared, strict=True):
                assert np.array_equal(places[rank::2], mine)
                assert torch.equal(pixels[rank::2], part)

    def test_that_cannot_be_shared_equally_are_filled_up(self, packed: PackedImages) -> None:
        shares = [self.drawn(packed, rank=rank, world_size=4)[0][0] for rank in range(4)]
        assert [len(share) for share in shares] == [2] * 4
        assert {int(place) for share in shares for place in share} == set(self.drawn(packed)[0][0].tolist())

    def test_change_with_the_epoch_and_the_seed_alone(self, packed: PackedImages) -> None:
        first = self.drawn(packed)[0][1]
        assert torch.equal(self.drawn(packed)[0][1], first)
        assert not torch.equal(self.drawn(packed, epoch=1)[0][1], first)
        assert not torch.equal(self.drawn(packed, seed=1)[0][1], first)

    def test_hold_the_images_themselves_where_nothing_is_changed(self, packed: PackedImages) -> None:
        still = ImageChanges(horizontal_flip=0, vertical_flip=0, quarter_turn=0, brightness=0, contrast=0)
        places, pixels = next(batches_of(packed, epoch=0, batch_size=6, changes=still, seed=0))
        exact = packed.pixels[packed.train[places]].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(pixels.numpy(), exact, atol=1e-6)


class TestChanges:
    def test_reach_all_eight_positions_and_no_other(self) -> None:
        image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        reached = {ImageChanges().draw(seed).moved(image).tobytes() for seed in range(300)}
        turns = [np.rot90(image, quarters) for quarters in range(4)]
        assert reached == {turned.tobytes() for turn in turns for turned in (turn, turn[::-1])}

    def test_stay_within_their_limits(self) -> None:
        drawn = [ImageChanges(brightness=0.1, contrast=0.3).draw(seed) for seed in range(500)]
        for values, low, high in (
            ([change.brightness for change in drawn], -0.1, 0.1),
            ([change.contrast for change in drawn], 0.7, 1.3),
        ):
            margin = 0.02 * (high - low)
            assert low <= min(values) < low + margin
            assert high - margin < max(values) <= high


def test_the_learning_rate_rises_and_falls_along_half_a_cosine() -> None:
    training = BackboneTraining(lr=0.5, warmup=0.2)
    rates = [training.lr_at(step, steps=100) for step in range(100)]
    assert rates[:20] == pytest.approx([0.5 * (step + 1) / 21 for step in range(20)])
    assert rates[20] == pytest.approx(0.5)
    assert rates[60] == pytest.approx(0.25)
    assert rates[99] < 1e-3 * 0.5
    assert BackboneTraining(lr=0.5, warmup=0).lr_at(0, steps=1) == 0.5


def test_each_loss_of_a_distillation_moves_its_own_side_alone() -> None:
    """Against literal gradients, term by term, of the formulas in `engine.distil`."""
    spec = Distillation(
        supervised_weight=0.7, adversarial_weight=0.3, compared_dimensions=12, discriminator_width=8
    )
    network = Backbone(kind="mobilenet_v3", weights="none", input_size=32).build().train()
    objective = Distilled(network, classes=2, spec=spec)
    pixels, labels, taught = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 0]), torch.randn(4, 12)
    student = [*network.parameters(), *objective.head.parameters(), *objective.projection.parameters()]
    judge = list(objective.discriminator.parameters())

    terms = dict(zip(objective.TERMS, objective(pixels, labels, taught), strict=True))
    terms["loss"].backward()
    features = network.embed(network.normalised(pixels))
    projected = objective.projection(features)
    supervised = cross_entropy(objective.head(features), labels)
    fooled = -logsigmoid(objective.discriminator(projected)).mean()
    told = (
        -logsigmoid(objective.discriminator(taught)).mean()
        - logsigmoid(-objective.discriminator(projected)).mean()
    )
    for name, literal in (("supervised", supervised), ("adversarial", fooled), ("discriminator", told)):
        torch.testing.assert_close(terms[name], literal)
    for side, loss in ((student, 0.7 * supervised + 0.3 * fooled), (judge, told)):
        for parameter, gradient in zip(side, torch.autograd.grad(loss, side, retain_graph=True), strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training on the labels."""
    directory = tmp_path_factory.mktemp("trained") / "teacher"
    runtime = LocalRuntime(device="cpu", cpus=1)
    train_backbone(TRAINED, training=SHORT, images=given(), directory=directory, runtime=runtime)
    return directory


class TestTraining:
    def test_leaves_weights_that_the_backbone_takes_and_what_made_them(self, trained: Path) -> None:
        result = read_backbone(trained)
        assert {path.name for path in trained.iterdir()} == KEPT
        assert TRAINED.build(weights=trained / "weights.safetensors").dimensions == 1280
        assert Backbone.load(result["backbone"], source="") == TRAINED
        assert BackboneTraining.load(result["training"], source="").epochs == 3
        assert result["images"] == {"train": 16, "validation": 6}
        assert result["classes"] == list(CLASSES)
        assert [record["epoch"] for record in result["history"]] == [1, 2, 3]
        assert {"train/loss", "val/loss", "val/f1", "val/accuracy", "lr"} <= result["history"][0].keys()

    def test_learns(self, runtime: LocalRuntime, tmp_path: Path) -> None:
        # a few steps from random weights go up and down with the processor's rounding
        longer = SHORT.model_copy(update={"epochs": 12})
        result = train_backbone(
            TRAINED, training=longer, images=given(), directory=tmp_path / "longer", runtime=runtime
        )
        losses = [record["train/loss"] for record in result["history"]]
        assert min(losses[-3:]) < 0.5 * losses[0]

    def test_that_is_finished_is_only_read(self, trained: Path, runtime: LocalRuntime) -> None:
        result = train_backbone(
            TRAINED, training=SHORT, images=given(read=unreadable), directory=trained, runtime=runtime
        )
        assert result == read_backbone(trained)

    def test_of_another_backbone_is_not_written_over(self, trained: Path, runtime: LocalRuntime) -> None:
        longer = SHORT.model_copy(update={"epochs": 4})
        with pytest.raises(DataError, match=r"holds the training of another backbone \(another training\)"):
            train_backbone(TRAINED, training=longer, images=given(), directory=trained, runtime=runtime)

    @pytest.mark.parametrize("spec", [TRAINED, DISTILLED], ids=["labels", "distillation"])
    def test_that_died_goes_on_to_the_same_bits(
        self, spec: Backbone, trained: Path, runtime: LocalRuntime, tmp_path: Path
    ) -> None:
        teacher = trained / "weights.safetensors" if spec is DISTILLED else None

        def train(directory: Path, on_epoch: Callable[[dict[str, Any]], None], read: Any) -> dict[str, Any]:
            return train_backbone(
                spec, training=SHORT, images=given(read=read), directory=directory, runtime=runtime,
                teacher=teacher, on_epoch=on_epoch,
            )  # fmt: skip

        def die(record: dict[str, Any]) -> None:
            if record["epoch"] == 2:
                shutil.copytree(tmp_path / "died", tmp_path / "torn")
                raise KeyboardInterrupt

        whole = read_backbone(trained)
        if spec is DISTILLED:
            whole = train(tmp_path / "whole", lambda _: None, picture)
            assert set(whole["history"][0]) > {"train/supervised", "train/adversarial", "train/told_apart"}
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "died", die, picture)
        assert not (tmp_path / "died" / "backbone.json").exists()
        epochs: list[int] = []
        resumed = train(tmp_path / "died", lambda record: epochs.append(record["epoch"]), unreadable)
        assert epochs == [3]
        assert timeless(resumed) == timeless(whole)
        assert [resumed[key] for key in HASHES] == [whole[key] for key in HASHES]
        if spec is DISTILLED:
            assert {path.name for path in (tmp_path / "died").iterdir()} == KEPT
            return
        state = tmp_path / "torn" / "state.safetensors"
        state.write_bytes(state.read_bytes()[:1000])
        assert train(tmp_path / "torn", lambda _: None, unreadable)["sha256"] == whole["sha256"]

    def test_begins_with_the_given_weights(
        self, trained: Path, runtime: LocalRuntime, tmp_path: Path
    ) -> None:
        start = str(trained / "weights.safetensors")
        begun = SHORT.model_copy(update={"epochs": 1, "lr": 1e-9, "start": start})
        train_backbone(TRAINED, training=begun, images=given(), directory=tmp_path / "run", runtime=runtime)
        before, after = (load_file(path / "weights.safetensors") for path in (trained, tmp_path / "run"))
        weights = [name for name in before if name.endswith(".weight")]
        assert max(float((after[name] - before[name]).abs().max()) for name in weights) < 1e-6

    def test_without_validation_images_has_no_scores(self, runtime: LocalRuntime, tmp_path: Path) -> None:
        short = SHORT.model_copy(update={"epochs": 1})
        result = train_backbone(
            TRAINED, training=short, images=given(8, validation=0), directory=tmp_path, runtime=runtime
        )
        assert not [name for name in result["history"][0] if name.startswith("val/")]

    def test_that_diverges_keeps_nothing(self, trained: Path, runtime: LocalRuntime, tmp_path: Path) -> None:
        tensors = load_file(trained / "weights.safetensors")
        tensors["conv_stem.weight"].fill_(torch.nan)
        save_file(tensors, tmp_path / "nan.safetensors")
        started = SHORT.model_copy(update={"start": str(tmp_path / "nan.safetensors")})
        with pytest.raises(Diverged, match="the training loss of epoch 1 is nan"):
            train_backbone(
                TRAINED, training=started, images=given(), directory=tmp_path / "run", runtime=runtime
            )
        assert not (tmp_path / "run" / "state.safetensors").exists()
        with pytest.raises(DataError, match="no finished training of a backbone"):
            read_backbone(tmp_path / "run")

    def test_needs_a_teacher_where_it_distils_and_only_there(
        self, runtime: LocalRuntime, tmp_path: Path
    ) -> None:
        for spec, teacher, error in (
            (DISTILLED, None, SpecError),
            (TRAINED, tmp_path / "teacher.safetensors", SpecError),
            (DISTILLED, tmp_path / "teacher.safetensors", WeightsError),
        ):
            with pytest.raises(error, match="teacher"):
                train_backbone(
                    spec, training=SHORT, images=given(), directory=tmp_path / "run", runtime=runtime,
                    teacher=teacher,
                )  # fmt: skip
        assert not (tmp_path / "run").exists()

    def test_refuses_a_batch_of_one_image_and_packed_images_of_another_set(
        self, runtime: LocalRuntime, tmp_path: Path
    ) -> None:
        two = TrainingImages(picture, [0, 1], CLASSES, [0, 1], [], "")
        asked = {
            "backbone": TRAINED.plain(), "training": SHORT.plain(), "data": two.key,
            "weights": {}, "paths": {"start": "none", "teacher": None},
        }  # fmt: skip
        pack(two, size=32, directory=tmp_path)
        many = LocalRuntime(device="cpu", cpus=1)
        many.world_size = 2
        with pytest.raises(ResourceError, match="--workers 2: batch normalisation needs two images a worker"):
            train_packed(asked, directory=tmp_path, runtime=many)
        with pytest.raises(DataError, match=r"images.npy: other images than those asked for"):
            train_packed(asked | {"data": "other"}, directory=tmp_path, runtime=runtime)

    def test_result_is_plain_json(self, trained: Path) -> None:
        assert json.loads((trained / "backbone.json").read_text("utf-8")) == read_backbone(trained)


class TestStartingWeights:
    """A backbone that is learnt here, and its teacher, may start from pretrained weights, as the paper's."""

    def test_of_student_and_teacher_are_the_ones_of_the_recipe(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun: list[tuple[str, str, str]] = []

        def train(backbone: Backbone, *, training: BackboneTraining, **_: Any) -> dict[str, Any]:
            begun.append((backbone.kind, backbone.weights, training.start))
            return {"seconds": 0.0}

        monkeypatch.setattr(learn, "train_backbone", train)
        monkeypatch.setattr(learn, "_training_images", lambda images, classes: given())
        training = BackboneTraining(start="imagenet", distillation=Distillation(teacher_start="imagenet"))
        student = Backbone(kind="mobilenet_v3", weights="distilled", input_size=32)
        asked = {
            "images": [], "classes": CLASSES, "storage": tmp_path, "workers": 1, "cpus": 1, "address": None,
            "say": print,
        }  # fmt: skip
        places = {
            learn.learn_backbone(student, training, **asked),
            learn.learn_backbone(student, BackboneTraining(), **asked),
        }
        assert begun == [
            ("resnet50", "trained", "imagenet"),
            ("mobilenet_v3", "distilled", "imagenet"),
            ("resnet50", "trained", "none"),
            ("mobilenet_v3", "distilled", "none"),
        ]
        assert len(places) == 2, "one is not taken for the other"

    @pytest.mark.parametrize(
        ("weights", "wanted"),
        [
            ("trained", [("mobilenet_v3", "imagenet")]),
            ("distilled", [("mobilenet_v3", "imagenet"), ("resnet50", "none")]),
            ("imagenet", [("mobilenet_v3", "imagenet")]),
        ],
    )
    def test_are_looked_for_before_anything_begins(
        self, tmp_path: Path, weights: str, wanted: list[tuple[str, str]]
    ) -> None:
        recipe = ClassifierRecipe(
            name="walls",
            backbone=Backbone(kind="mobilenet_v3", weights=weights),
            training=BackboneTraining(start="imagenet"),
            backbone_share=0.4,
        )
        assert [(one.kind, one.weights) for one in recipe.weights_wanted] == wanted
        space = load_space(
            "cnn_svm", profile="cpu", fixed={"training.start": "imagenet", "backbone.weights": weights}
        )
        with pytest.raises(WeightsError, match="mobilenet_v3"):
            check_all_weights(space, hub=Hub(endpoint="http://127.0.0.1:9", cache=tmp_path, seconds=0.5))

    def test_that_are_random_leave_the_names_of_earlier_runs(self) -> None:
        recipe = ClassifierRecipe(name="walls")
        plain = recipe.plain()
        del plain["training"]["start"]
        del plain["training"]["distillation"]["teacher_start"]
        assert ClassifierRecipe.load(plain, source="recipe.json") == recipe
        assert recipe.run_id("c" * 16) == digest({"recipe": plain, "content": "c" * 16})[:12]
        started = recipe.model_copy(update={"training": BackboneTraining(start="imagenet")})
        assert started.run_id("c" * 16) != recipe.run_id("c" * 16)
