"""Data that change while work on them is under way: noticed, named, and never mixed with what was there."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.classification.evaluation import evaluate_classifier
from fissura.classification.features import ImageToRead, extract
from fissura.core.errors import DataChanged
from fissura.data.cache import content_digest, prepare
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_dataset
from fissura.data.labelled import ClassFolder, image_keys, labelled_digest
from fissura.data.resize import Fixed, Native
from fissura.data.sources import change_of
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.trial import TrialActor, TrialContext
from fissura.models.backbones import Backbone
from fissura.recipes import load_recipe
from fissura.records import class_store, store
from fissura.segmentation.evaluation import evaluate
from fissura.spaces.fields import override

CPU = torch.device("cpu")
SMALL = {"model.width": 4, "model.depth": 2, "data.crop.size": 32, "epochs": 1}
HALF = Fixed(width=24, height=24)


def brighten(path: Path) -> None:
    """Puts another photograph in the place of an image."""
    image = np.array(Image.open(path))
    Image.fromarray(255 - image).save(path)


def replace_one(folder: Path) -> None:
    brighten(min((folder / "images" / "train").iterdir()))


def remove_one(folder: Path) -> None:
    for part in ("images", "masks"):
        min((folder / part / "train").iterdir()).unlink()


def add_one(folder: Path) -> None:
    for part in ("images", "masks"):
        first = min((folder / part / "train").iterdir())
        shutil.copy(first, first.with_stem(f"{first.stem}9"))


CHANGES = [replace_one, remove_one, add_one]
Change = Callable[[Path], None]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write(SyntheticSpec(train=2, val=1, test=2, height=48, width=48, crack_width=(1.5, 4.0)), folder)
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "set"))


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return parse_dataset(f"synthetic:{folder}")


@pytest.fixture
def walls(tmp_path: Path) -> ClassFolder:
    """Dark images, which the classifier of the tests calls cracked, and bright ones."""
    greys = np.random.default_rng(0).integers(-9, 9, (12, 32, 32, 3))
    for number, noise in enumerate(greys):
        label, grey = (("crack", 40), ("sound", 200))[number % 2]
        path = tmp_path / "walls" / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grey + noise).astype(np.uint8)).save(path)
    return ClassFolder(root=tmp_path / "walls")


def images_of(data: object) -> list[bytes]:
    return [data.image(index).tobytes() + data.mask(index).tobytes() for index in range(len(data))]


class TestASegmentation:
    @pytest.mark.parametrize("change", CHANGES)
    def test_what_was_prepared_is_gone_on_with_and_nothing_else_is_prepared(
        self, change: Change, folder: Path, dataset: Dataset, tmp_path: Path
    ) -> None:
        cache, content = tmp_path / "cache", content_digest([dataset])
        before = images_of(prepare([dataset], resize=Native(), directory=cache, content=content))
        change(folder)
        after = prepare([dataset], resize=Native(), directory=cache, content=content)
        assert images_of(after) == before
        stood = sorted(path.name for path in cache.iterdir() if path.is_dir())
        with pytest.raises(DataChanged, match=f"they were {content}"):
            prepare([dataset], resize=HALF, directory=cache, content=content)
        assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == stood

    @pytest.mark.parametrize(
        "change", [CHANGES[0], *(pytest.param(change, marks=pytest.mark.slow) for change in CHANGES[1:])]
    )
    def test_a_later_trial_trains_on_the_study_s_own_images_or_fails(
        self, change: Change, folder: Path, dataset: Dataset, tmp_path: Path
    ) -> None:
        context = TrialContext(
            study=tmp_path, datasets=(dataset,), content=content_digest([dataset]),
            cache=tmp_path / "cache", cpus=1,
        )  # fmt: skip

        def trial(run: str, **more: object) -> dict[str, object]:
            recipe = override(load_recipe("small_unet"), SMALL | more)
            config = {"number": 1, "run_id": run, "recipe": recipe.plain(), "context": context.plain()}
            actor = TrialActor(config=config)
            try:
                return actor.train()
            finally:
                actor.stop()

        before = trial("before")
        change(folder)
        after = trial("after")
        assert after["val/loss"] == before["val/loss"]
        resized = {"data.resize": {"kind": "fixed", "width": 32, "height": 32}}
        other = trial("other", **resized)
        assert "changed since the work on them began" in str(other["failure"])
        assert not (tmp_path / "runs" / "other" / "manifest.json").exists()

    def test_scores_of_other_images_are_not_kept(
        self, folder: Path, dataset: Dataset, tmp_path: Path, write_segmenter: Callable[..., Path]
    ) -> None:
        run, content = write_segmenter(tmp_path / "0123456789abcdef"), content_digest([dataset])
        test = sorted((folder / "images" / "test").iterdir())
        with pytest.raises(DataChanged, match=f"{test[-1]}: changed while the run was scored on it"):
            evaluate(
                run, datasets=[dataset], device=CPU, content=content, on_image=lambda *_: brighten(test[-1])
            )
        with pytest.raises(DataChanged, match=f"they were {content}"):
            evaluate(run, datasets=[dataset], device=CPU, content=content)
        assert not (run / store.FILE).exists()

    @pytest.mark.parametrize("when", ["while", "before"])
    def test_a_folder_that_is_renamed_is_one_line_that_names_the_option(
        self, when: str, folder: Path, dataset: Dataset, tmp_path: Path, write_segmenter: Callable[..., Path]
    ) -> None:
        run, content = write_segmenter(tmp_path / "0123456789abcdef"), content_digest([dataset])
        away = folder.with_name("away")

        def rename(*_: int) -> None:
            if folder.is_dir():
                folder.rename(away)

        if when == "before":
            rename()
        with pytest.raises(DataChanged) as changed:
            evaluate(run, datasets=[dataset], device=CPU, content=content, on_image=rename)
        (line,) = str(changed.value).splitlines()
        assert line.startswith(f"{folder}: the data's folder is no longer there")
        assert "--data" in line


class TestAClassification:
    def test_an_image_is_what_its_key_names_or_ends_the_work(self, walls: ClassFolder) -> None:
        images = image_keys([walls])
        pixels = images[0].read()
        content = images[0].image.path.read_bytes()
        brighten(images[0].image.path)
        with pytest.raises(DataChanged, match=f"{images[0].image.path}: changed since the work"):
            images[0].read()
        images[0].image.path.unlink()
        with pytest.raises(DataChanged, match="put it back, or name where the data lie now with --data"):
            images[0].read()
        images[0].image.path.write_bytes(content)
        np.testing.assert_array_equal(images[0].read(), pixels)

    def test_no_features_are_kept_under_the_key_of_another_image(self, walls: ClassFolder) -> None:
        images = image_keys([walls])
        reads = [ImageToRead(each.key, each.image.name, each.read) for each in images]
        network = Backbone(kind="mobilenet_v3", weights="none", input_size=32).build()
        brighten(images[5].image.path)
        with pytest.raises(DataChanged, match=re.escape(str(images[5].image.path))):
            extract(network, reads, batch_size=4, device=CPU)

    def test_classes_of_other_images_are_not_kept(
        self, walls: ClassFolder, classifier_run: Path, tmp_path: Path
    ) -> None:
        run = Path(shutil.copytree(classifier_run, tmp_path / classifier_run.name))
        images, content = image_keys([walls]), labelled_digest([walls])
        tested = [each for each in images if each.image.split == "test"]
        brighten(tested[-1].image.path)
        with pytest.raises(DataChanged):
            evaluate_classifier(
                run, images, content=content, split="test", conditions=(class_store.CLEAN,), device=CPU
            )
        assert not (run / class_store.FILE).exists()


def test_a_study_says_that_its_data_changed(dataset: Dataset, folder: Path, walls: ClassFolder) -> None:
    for data, change in (
        (dataset, lambda: replace_one(folder)),
        (walls, lambda: brighten(image_keys([walls])[0].image.path)),
    ):
        content = content_digest([data]) if data is dataset else labelled_digest([walls])
        assert change_of([data], content=content, directory=None) == ""
        change()
        said = change_of([data], content=content, directory=None)
        assert "changed while the study ran" in said
        assert f"every trial of it saw {content}" in said
    (folder / "masks").rename(folder / "gone")
    assert "not whole: " in change_of([dataset], content="c" * 16, directory=None)
