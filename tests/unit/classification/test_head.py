"""The classifier `head`: the one that a backbone learnt with, kept, read, judged and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fissura.classical.compression import Compression
from fissura.classification.backbone import Backbone, BackboneTraining, TrainingImages, train_backbone
from fissura.classification.backbone_training import BackboneTrainer
from fissura.classification.cross_validation_score import fit, judge, shares_distances
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.run import Classifier, close_classifier_run
from fissura.classification.trained_head import TrainedHead
from fissura.core.errors import DataError, SpaceError, SpecError
from fissura.deploy.export_table import classifier_macs
from fissura.deploy.model import open_model
from fissura.spaces import load_space
from fissura.training.runtime import LocalRuntime

CLASSES = ("none", "crack")
BACKBONE = Backbone(kind="mobilenet_v3", weights="trained", input_size=32)


def recipe(**changes: object) -> ClassifierRecipe:
    plain = {"name": "walls", "backbone": BACKBONE, "backbone_share": 0.4, "classifier": {"kind": "head"}}
    return ClassifierRecipe.model_validate(plain | {"folds": 3} | changes)


def picture(index: int) -> np.ndarray:
    """Grey noise; an odd index is darker."""
    noise = np.random.default_rng(index).integers(130, 200, (32, 32, 3))
    return (noise // (1 + index % 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder of a backbone that was trained for two epochs; six images, and the class logits that it gave
    them at the end of its training."""
    directory = tmp_path_factory.mktemp("learnt")
    images = TrainingImages(
        picture, [index % 2 for index in range(22)], CLASSES, range(16), range(16, 22), "0" * 16
    )
    seen = np.stack([picture(index) for index in range(40, 46)])
    logits: list[np.ndarray] = []
    step = BackboneTrainer.step

    def watched(trainer: BackboneTrainer) -> dict[str, object]:
        record = step(trainer)
        trainer._objective.eval()
        with torch.inference_mode():
            pixels = torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255
            logits.append(trainer._objective.logits(pixels).numpy())
        return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackboneTrainer, "step", watched)
        train_backbone(
            BACKBONE, training=BackboneTraining(epochs=2, batch_size=8), images=images, directory=directory,
            runtime=LocalRuntime(device="cpu", cpus=1),
        )  # fmt: skip
    return directory, seen, logits[-1]


@pytest.fixture
def head() -> TrainedHead:
    """One that says `crack` where the first feature is above 0."""
    return TrainedHead(np.array([[0, 0], [8, 0]], np.float32), np.zeros(2, np.float32))


class TestKept:
    def test_gives_as_a_run_the_probabilities_of_the_training_s_own_network(
        self, learnt: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
    ) -> None:
        directory, images, logits = learnt
        network = BACKBONE.build(weights=directory / "weights.safetensors")
        small = TrainedHead.read(directory).compact(classes=CLASSES, compression=Compression())
        run = tmp_path / "0123456789abcdef"
        close_classifier_run(
            run, recipe=recipe(), network=network, classifier=small, datasets=(), content="d" * 16,
            metrics={}, seconds=1.0, cpus=1,
        )  # fmt: skip
        opened = Classifier.open(run, device=torch.device("cpu"))
        predictions, decisions = opened(list(images))
        expected = torch.from_numpy(logits).softmax(1).numpy()
        np.testing.assert_allclose(decisions[:, 0], expected[:, 1] - expected[:, 0], atol=1e-5)
        assert (predictions == expected.argmax(1)).all()
        assert opened.compact.classes == CLASSES
        answers = open_model(run, device=torch.device("cpu"))(list(images))
        assert [answer.label for answer in answers] == [CLASSES[place] for place in predictions]

    def test_is_of_the_hash_in_the_backbone_s_result(
        self, learnt: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
    ) -> None:
        whole = load_file(learnt[0] / "head.safetensors")
        assert {name: array.shape for name, array in whole.items()} == {"weight": (2, 960), "bias": (2,)}
        damaged = Path(shutil.copytree(learnt[0], tmp_path / "damaged"))
        path = damaged / "head.safetensors"
        torn = bytearray(path.read_bytes())
        torn[-1] ^= 1
        path.write_bytes(torn)
        with pytest.raises(DataError, match=r"head.safetensors: is damaged .*remove backbone.json there"):
            TrainedHead.read(damaged)
        path.unlink()
        with pytest.raises(DataError, match=r"head.safetensors: is missing; remove backbone.json there"):
            TrainedHead.read(damaged)

    def test_of_a_backbone_of_before_heads_were_kept_is_told_in_one_line(
        self, learnt: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
    ) -> None:
        old = Path(shutil.copytree(learnt[0], tmp_path / "old"))
        (old / "head.safetensors").unlink()
        plain = json.loads((old / "backbone.json").read_text("utf-8"))
        del plain["head_sha256"]
        (old / "backbone.json").write_text(json.dumps(plain), "utf-8")
        with pytest.raises(DataError, match=r"remove backbone.json there, then train again") as caught:
            TrainedHead.read(old)
        assert "\n" not in str(caught.value)
        BACKBONE.build(weights=old / "weights.safetensors")


class TestJudged:
    def test_on_every_image_as_it_is_without_a_fit(self, head: TrainedHead) -> None:
        generator = np.random.default_rng(0)
        labels = np.tile([0, 1], 30)
        features = generator.normal(size=(60, 2)).astype(np.float32) + 3 * (labels[:, None] - 0.5)
        features = features.astype(np.float32)
        given = {"labels": labels, "classes": CLASSES}
        scores = judge(recipe(), features, fold_of=np.arange(60) % 3, head=head, **given)
        assert scores["cv/accuracy"] == ((features[:, 0] > 0) == labels).mean()
        small = fit(recipe(), features, head=head, **given)
        assert scores["bytes"] == small.nbytes
        assert scores["microseconds"] is not None
        shuffled = fit(recipe(), features, labels=generator.permutation(labels), classes=CLASSES, head=head)
        assert (shuffled.decision(features) == small.decision(features)).all()

    def test_as_int8_where_it_is_compressed(self, head: TrainedHead) -> None:
        generator = np.random.default_rng(0)
        wide = TrainedHead((generator.normal(size=(2, 960)) / 31).astype(np.float32), head.bias)
        whole, small = (wide.compact(classes=CLASSES, compression=Compression(bits=bits)) for bits in (32, 8))
        features = generator.normal(size=(50, 960)).astype(np.float32)
        assert small.nbytes < 0.4 * whole.nbytes
        assert np.abs(small.probability(features) - whole.probability(features)).max() < 0.02

    def test_by_no_distances(self) -> None:
        assert not shares_distances(recipe(), ["cv/f1"])

    def test_only_where_one_is_given(self) -> None:
        with pytest.raises(SpecError, match=r"none was given; read it with `TrainedHead.read`"):
            fit(recipe(), np.ones((4, 2), np.float32), labels=np.tile([0, 1], 2), classes=CLASSES)

    def test_says_where(self) -> None:
        said = recipe().measured("cv/f1", on="walls")
        assert said == "on the images of the training split of walls that the backbone never saw"

    def test_costs_a_product_and_an_exponential_a_class(self, head: TrainedHead, tmp_path: Path) -> None:
        head.compact(classes=CLASSES, compression=Compression()).save(tmp_path / "classifier.npz")
        assert classifier_macs(tmp_path / "classifier.npz") == 2 * 2 + 2


class TestRecipes:
    @pytest.mark.parametrize("weights", ["imagenet", "none", "mine.safetensors"])
    def test_of_a_backbone_that_was_not_learnt_here_are_refused(self, weights: str) -> None:
        backbone = BACKBONE.model_copy(update={"weights": weights})
        with pytest.raises(ValueError, match=f"weights `{weights}` come without one: set `backbone.weights`"):
            recipe(backbone=backbone)

    @pytest.mark.parametrize("method", ["prune", "fourier", "nystroem", "reduced_set"])
    def test_of_a_compression_that_has_nothing_to_take_are_refused(self, method: str) -> None:
        with pytest.raises(ValueError, match=f"`{method}` makes nothing of it smaller: take `none`"):
            recipe(compression={"method": method})

    def test_tell_both_rules_at_once(self) -> None:
        with pytest.raises(ValueError, match=r"come without one.*; `compression.method`"):
            recipe(backbone={"kind": "vgg16"}, compression={"method": "prune"})

    def test_of_what_a_head_does_not_read_are_one(self) -> None:
        same = [
            recipe(whitening=whitening, compression=compression)
            for whitening in ({"kind": "none"}, {"kind": "zca", "rank": 16})
            for compression in ({}, {"share": 0.2, "rank": None})
        ]
        assert len({one.run_id("c" * 16) for one in same}) == 1
        assert recipe(compression={"bits": 8}).run_id("c" * 16) != same[0].run_id("c" * 16)
        assert {one.whitens_by.kind for one in same} == {"none"}

    def test_of_the_others_keep_their_names(self) -> None:
        svm = recipe(classifier={"kind": "svm"})
        assert svm.named_by() == {**svm.plain(), "training": svm.training.named_by()}
        assert svm.whitens_by == svm.whitening

    def test_are_searched_beside_the_others(self) -> None:
        space = load_space("cnn_svm", profile="end_to_end")
        for kind in ("svm", "forest", "head"):
            found = space.recipe_for(space.completed({"classifier.kind": kind}))
            assert isinstance(found, ClassifierRecipe)
            assert found.classifier.kind == kind

    def test_are_searched_alone_where_the_kind_is_set(self) -> None:
        space = load_space("cnn_svm", profile="cpu", fixed={"classifier.kind": "head"})
        assert not [path for path in space.completed({}) if path.startswith("classifier.")]
        with pytest.raises(SpaceError, match="weights `imagenet` come without one"):
            load_space("cnn_svm", profile="gpu", fixed={"classifier.kind": "head"})
