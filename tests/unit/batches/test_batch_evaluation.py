"""The evaluation of a test set by a batch: which images, which masks, which labels; the same numbers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from fissura.batches.evaluation import evaluate, names_a_data_set, open_test_set
from fissura.batches.rows import schema, write_rows
from fissura.batches.scorer import ModelCard
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError, SpecError
from fissura.data.datasets import parse_dataset
from fissura.data.labelled import parse_labelled
from fissura.data.synthetic import SyntheticSpec, write
from fissura.metrics import parse_protocol
from fissura.reports.score import score_folders
from fissura.tasks.classification.batch import Labels
from fissura.tasks.segmentation.batch import Masks, masks_in

PROTOCOLS = tuple(parse_protocol(text) for text in ("pixel", "tolerant:2", "overlap", "flexible:1"))
SHAPE = 20, 30
WALLS = "walls", "d" * 16


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Images, masks, and maps as a batch keeps them: `a.jpg`, `b/c.png`, and `free.tif` without a crack."""
    for stem, suffix in (("a", ".jpg"), ("b/c", ".png"), ("free", ".tif")):
        mask = np.zeros(SHAPE, np.uint8)
        if stem != "free":
            mask[8:11, 3:-3] = 255
        save(tmp_path / "images" / f"{stem}{suffix}", np.full((*SHAPE, 3), 90, np.uint8))
        save(tmp_path / "masks" / f"{stem}.png", mask)
        grey = np.clip(rng.normal(60 + 0.5 * mask, 50), 0, 255).astype(np.uint8)
        save(tmp_path / "out/probabilities" / f"{stem}.png", grey)
    return tmp_path


def results(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_rows(folder / "results.parquet", pa.Table.from_pylist(rows, schema=schema()), question="q")
    return folder / "results.parquet"


def evaluated(
    folders: Path, source: ImageSource, truth: Any, *, failed: tuple[str, ...] = (), **options: Any
) -> Any:
    rows = [{"image": name, "error": "torn" if name in failed else None} for name in source.names()]
    plain: dict[str, Any] = {
        "protocols": PROTOCOLS,
        "card": ModelCard(run="r", task="segmentation", threshold=0.4),
        "facts": {"data": "walls"},
    }
    out = folders / "out"
    return evaluate(out, results(out, rows), truth, names=source.names(), **{**plain, **options})


class TestMasksInAFolder:
    def test_score_as_fissura_score_does_number_for_number(self, folders: Path) -> None:
        source = ImageSource.open(str(folders / "images"))
        found = evaluated(folders, source, masks_in(folders / "masks", source))
        for folder in ("masks", "out/probabilities"):  # which knows no folders in a folder
            (folders / folder / "b/c.png").rename(folders / folder / "c.png")
        for protocol, scores in zip(PROTOCOLS, found["scores"], strict=True):
            other = score_folders(
                folders / "out/probabilities", folders / "masks", protocol=protocol, threshold=0.4
            )
            assert scores == {**other.plain(), "data_name": f"{folders.name}/images"}
            assert scores["crack_free"]["images"] == 1
        assert (found["data"], found["images"], found["left_out"]) == ("walls", 3, [])

    def test_leave_out_images_without_a_result_and_name_them(self, folders: Path) -> None:
        source = ImageSource.open(str(folders / "images"))
        truth = masks_in(folders / "masks", source)
        found = evaluated(folders, source, truth, failed=("a.jpg",))
        assert (found["images"], found["left_out"]) == (2, ["a.jpg"])
        assert {scores["images"] for scores in found["scores"]} == {2}
        with pytest.raises(DataError, match="nothing to score"):
            evaluated(folders, source, truth, failed=tuple(source.names()))

    def test_are_named_like_the_images_pictures(self, folders: Path) -> None:
        save(folders / "images/a.png", np.full((*SHAPE, 3), 90, np.uint8))
        source = ImageSource.open(str(folders / "images"))
        (folders / "masks/a.png").rename(folders / "masks/a.jpg.png")
        save(folders / "masks/a.png.tif", np.zeros(SHAPE, np.uint8))
        truth = masks_in(folders / "masks", source)
        assert truth.read["a.jpg"]().mask.any()
        assert not truth.read["a.png"]().mask.any()

    def test_without_an_image_or_an_image_without_one_are_told_all_at_once(self, folders: Path) -> None:
        (folders / "masks/a.png").rename(folders / "masks/x.png")
        save(folders / "masks/free.tif", np.zeros(SHAPE, np.uint8))
        source = ImageSource.open(str(folders / "images"))
        with pytest.raises(DataError) as caught:
            masks_in(folders / "masks", source)
        first, second, third = caught.value.problems
        assert "free" in first
        assert "another" in first
        assert second.startswith("a.jpg: an image has a mask of its name: add ")
        assert third.startswith(f"{folders / 'masks/x.png'}: a mask has an image of its name")

    def test_that_cannot_be_used_are_told_all_at_once(self, folders: Path) -> None:
        source = ImageSource.open(str(folders / "images"))
        truth = masks_in(folders / "masks", source)
        save(folders / "masks/a.png", np.full(SHAPE, 7, np.uint8))
        save(folders / "masks/b/c.png", np.zeros((3, 4), np.uint8))
        with pytest.raises(DataError) as caught:
            evaluated(folders, source, truth)
        first, second = caught.value.problems
        assert first.startswith(f"{folders / 'masks/a.png'}: a mask holds")
        assert "30x20, the mask is 4x3" in second
        assert not (folders / "out/scores.json").exists()

    def test_that_are_lossy_are_remarked_on(self, folders: Path) -> None:
        mask = np.array(Image.open(folders / "masks/a.png"))
        (folders / "masks/a.png").unlink()
        Image.fromarray(mask).save(folders / "masks/a.jpg", quality=50)
        source = ImageSource.open(str(folders / "images"))
        (remark,) = evaluated(folders, source, masks_in(folders / "masks", source))["remarks"]
        assert remark.startswith("a.jpg: ")
        assert "grey" in remark


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("folder:/data/x", True),
        ("class_folder:x", True),
        ("patches:cfd:/data/cfd", True),
        ("/data/x", False),
        ("s3://bucket/x", False),
        ("folder", False),
        ("photo:x", False),
    ],
)
def test_a_data_set_is_told_from_a_folder(text: str, is_one: bool) -> None:
    assert names_a_data_set(text) is is_one


class TestADataSet:
    @pytest.fixture
    def drawn(self, tmp_path: Path) -> Path:
        plain: dict[str, Any] = {"shadow": 0, "stain": 0, "low_contrast": 0, "clean": 0}
        write(SyntheticSpec(train=3, val=1, test=2, height=64, width=64, **plain), tmp_path / "set")
        return tmp_path / "set"

    def test_gives_the_files_as_they_lie_and_its_own_masks(self, drawn: Path, tmp_path: Path) -> None:
        source, truth = open_test_set(f"synthetic:{drawn}", split="test", directory=tmp_path)
        dataset = parse_dataset(f"synthetic:{drawn}")
        samples = {sample.name: sample for sample in dataset.samples() if sample.split == "test"}
        assert source.names() == sorted(samples)
        assert isinstance(truth, Masks)
        for name, sample in samples.items():
            assert source.read(name) == sample.image.read_bytes()
            assert np.array_equal(truth.read[name]().mask, dataset.read_mask(sample))
            assert truth.read[name]().valid is None
        assert source.root == drawn

    def test_gives_the_valid_pixels_too(self, drawn: Path, tmp_path: Path) -> None:
        for folder in (drawn / "images").iterdir():
            for path in folder.iterdir():
                valid = np.zeros((64, 64), np.uint8)
                valid[:, :20] = 255
                save(drawn / "valid" / folder.name / path.name, valid)
        source, truth = open_test_set(f"folder:{drawn}", split="val", directory=tmp_path)
        assert isinstance(truth, Masks)
        (name,) = source.names()
        inside = truth.read[name]().valid
        assert inside is not None
        assert inside.sum() == 64 * 20

    def test_of_squares_sends_them_without_loss_with_their_labels(self, tmp_path: Path) -> None:
        for split, value in (("train", 80), ("test", 120)):
            mask = np.zeros((192, 192), np.uint8)
            mask[20:30] = 255
            save(tmp_path / "set/masks" / split / f"{split}.png", mask)
            grey = np.random.default_rng(value).integers(0, value, (192, 192, 3)).astype(np.uint8)
            save(tmp_path / "set/images" / split / f"{split}.png", grey)
        text = f"patches:folder:{tmp_path / 'set'}"
        source, truth = open_test_set(text, split="test", directory=tmp_path)
        (dataset,) = parse_labelled([text])
        images = {image.name: image for image in dataset.images() if image.split == "test"}
        assert isinstance(truth, Labels)
        assert truth.classes == ("no_crack", "crack")
        assert truth.of == {name: image.label for name, image in images.items()}
        for name in source.names():
            square = np.array(Image.open(io.BytesIO(source.read(name))))
            assert np.array_equal(square, dataset.read(images[name]))

    def test_without_an_image_in_the_split_is_refused(self, tmp_path: Path) -> None:
        for label in ("crack", "no_crack"):
            for index in range(6):
                grey = np.random.default_rng(index + 10 * len(label)).integers(0, 255, (32, 32, 3))
                save(tmp_path / "walls" / label / f"{index}.png", grey.astype(np.uint8))
        source, truth = open_test_set(f"class_folder:{tmp_path / 'walls'}", split="test", directory=tmp_path)
        assert isinstance(truth, Labels)
        assert [truth.of[name] for name in source.names()] == [1, 0]
        with pytest.raises(DataError, match="no val images"):
            open_test_set(f"class_folder:{tmp_path / 'walls'}", split="val", directory=tmp_path)
        with pytest.raises((DataError, SpecError)):
            open_test_set("folder:", split="val", directory=tmp_path)


class TestLabels:
    TRUTH = Labels(("sound", "crack"), {"a": 0, "b": 1, "c": 1, "d": 0, "e": 1}, *WALLS)
    SAID = ("sound", "crack", "sound", "crack", "crack")
    DECISIONS = (-0.5, 0.25, -0.1, 0.1, 2.0)

    def evaluated(
        self, tmp_path: Path, truth: Labels = TRUTH, classes: tuple[str, ...] = ("sound", "crack")
    ) -> Any:
        rows = [
            {"image": name, "label": label, "decisions": [decision]}
            for name, label, decision in zip("abcde", self.SAID, self.DECISIONS, strict=True)
        ]
        return evaluate(
            tmp_path, results(tmp_path, rows), truth, names=list("abcde"),
            protocols=(), card=ModelCard(run="r", task="classification", classes=classes), facts={},
        )  # fmt: skip

    def test_score_as_scikit_learn_does(self, tmp_path: Path) -> None:
        found = self.evaluated(tmp_path)
        labels, said = [0, 1, 1, 0, 1], [0, 1, 0, 1, 1]
        assert found["scores"]["f1"] == pytest.approx(f1_score(labels, said))
        assert found["scores"]["accuracy"] == pytest.approx(accuracy_score(labels, said))
        assert found["scores"]["roc_auc"] == pytest.approx(roc_auc_score(labels, self.DECISIONS))
        assert found["confusion"] == confusion_matrix(labels, said).tolist()
        assert found["remarks"] == []

    def test_of_other_names_are_taken_in_their_order_with_a_remark(self, tmp_path: Path) -> None:
        other = Labels(("negative", "positive"), self.TRUTH.of, *WALLS)
        found = self.evaluated(tmp_path, other)
        assert found["scores"] == self.evaluated(tmp_path)["scores"]
        assert found["remarks"] == ["the data's classes negative, positive are taken for sound, crack"]

    def test_in_another_order_are_told_by_their_names(self, tmp_path: Path) -> None:
        turned = Labels(
            ("crack", "sound"), {name: 1 - label for name, label in self.TRUTH.of.items()}, *WALLS
        )
        assert self.evaluated(tmp_path, turned) == self.evaluated(tmp_path)

    def test_of_more_or_fewer_classes_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the classes of its model"):
            self.evaluated(tmp_path, Labels(("a", "b", "c"), self.TRUTH.of, *WALLS))

    def test_that_the_model_does_not_have_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not crack"):
            self.evaluated(tmp_path, classes=("sound", "hole"))
