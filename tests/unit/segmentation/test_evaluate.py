"""The judgement of a run: every number follows from the stored maps, no threshold from the test images."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.core.errors import DataError
from fissura.data.cache import content_digest, prepare
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Pipeline, RandomCrop
from fissura.data.resize import Fixed, Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.deploy.model import open_model
from fissura.losses import BCE, Dice, DiceBCE
from fissura.metrics import (
    AnyProtocol,
    Flexible,
    Overlap,
    Pixel,
    Tolerant,
    best_threshold,
    level_of,
    parse_protocol,
    pool,
)
from fissura.metrics.counts import Counts
from fissura.models import Segmenter, UNet
from fissura.records.run_files import rewriting
from fissura.records.store import Row, read_runs
from fissura.reports.score import score_folders
from fissura.segmentation.evaluation import evaluate, threshold_of
from fissura.segmentation.fit import fit
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.predict import Predictor
from fissura.segmentation.recipe import Adam, Phase, Recipe
from fissura.segmentation.validation import validate
from fissura.training.runtime import LocalRuntime

CPU = torch.device("cpu")
PROTOCOLS: tuple[AnyProtocol, ...] = (Pixel(), Tolerant(distance=2), Overlap(), Flexible(distance=2))
RECIPE = Recipe(
    name="tiny",
    data=Pipeline(resize=Native(), crop=RandomCrop(size=32, per_image=4), batch_size=4, normalisation="unit"),
    model=UNet(width=4, depth=2),
    epochs=4,
    phases=(Phase(name="train", loss=DiceBCE(), optimizer=Adam(lr=0.02)),),
    protocols=(Tolerant(distance=2), Pixel()),
)


def train(dataset: Dataset, place: Path) -> Path:
    """A run on `dataset` below `place`."""
    runtime = LocalRuntime(device="cpu", cpus=1)
    fit(RECIPE, datasets=[dataset], run=place / "run", cache=place / "cache", runtime=runtime)
    return place / "run"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images of 42x50 pixels, which is no multiple of the network's stride; all show a crack."""
    folder = tmp_path_factory.mktemp("evaluate") / "set"
    plain: dict[str, Any] = {"shadow": 0, "stain": 0, "low_contrast": 0, "clean": 0, "crack_width": (3, 5)}
    write(SyntheticSpec(train=6, val=3, test=4, height=42, width=50, **plain), folder)
    return folder


@pytest.fixture(scope="session")
def trained(drawn: Path) -> Path:
    return train(parse_dataset(f"synthetic:{drawn}"), drawn.parent)


@pytest.fixture
def own(drawn: Path) -> Dataset:
    """The data that the run was trained on."""
    return parse_dataset(f"synthetic:{drawn}")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run that nothing has evaluated."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def other(drawn: Path, tmp_path: Path) -> Dataset:
    """Data of the same images that the run was not trained on: the mask of one test image is another."""
    copy = Path(shutil.copytree(drawn, tmp_path / "other"))
    shutil.copy(copy / "masks/test/0001.png", copy / "masks/test/0000.png")
    return parse_dataset(f"synthetic:{copy}")


def stored(run: Path, row: Row) -> np.ndarray:
    """The map of a row's image, read by other means than the project's."""
    folder = f"{row.dataset}-{row.split}-{row.data_digest[:8]}"
    return np.array(Image.open(run / "predictions" / folder / f"{row.image}.png"))


def recounted(run: Path, rows: Sequence[Row], dataset: Dataset) -> list[Counts]:
    """The counts of each row from its stored map."""
    samples = {(sample.split, sample.name): sample for sample in dataset.samples()}
    counts = []
    for row in rows:
        sample = samples[row.split, row.image]
        protocol, mask = parse_protocol(row.protocol), dataset.read_mask(sample)
        counts.append(protocol.count(stored(run, row), mask, dataset.read_valid(sample)))
    return counts


def assert_rows_follow_from_the_maps(run: Path, rows: Sequence[Row], dataset: Dataset) -> None:
    for row, counts in zip(rows, recounted(run, rows, dataset), strict=True):
        level = level_of(row.threshold)
        for name, values in vars(counts).items():
            assert getattr(row, name) == values[level]
        scores = parse_protocol(row.protocol).score(counts, level)
        assert (row.precision, row.recall, row.f1, row.dice, row.iou) == tuple(vars(scores).values())


class TestRows:
    def test_follow_from_the_stored_maps_under_every_protocol(self, run: Path, own: Dataset) -> None:
        rows = evaluate(run, datasets=[own], protocols=PROTOCOLS, device=CPU)
        assert [(row.image, row.protocol) for row in rows] == [
            (f"test-{i:04d}", str(protocol)) for i in range(4) for protocol in PROTOCOLS
        ]
        assert_rows_follow_from_the_maps(run, rows, own)
        assert {row.f1 for row in rows} - {0, 1}, "the run scores nothing in between"

    def test_of_exact_pixels_are_counted_by_hand(self, run: Path, own: Dataset, drawn: Path) -> None:
        for row in evaluate(run, datasets=[own], protocols=[Pixel()], device=CPU):
            predicted = stored(run, row) / 255 >= row.threshold
            crack = np.array(Image.open(drawn / f"masks/test/{row.image.removeprefix('test-')}.png")) == 255
            assert row.true_positive == row.found == int((predicted & crack).sum())
            assert row.false_positive == int((predicted & ~crack).sum())
            assert row.missed == int((~predicted & crack).sum())
            assert row.crack_pixels == int(crack.sum())
            assert (row.height, row.width) == crack.shape == (42, 50)

    def test_hold_curves_where_the_protocol_sweeps(self, run: Path, own: Dataset) -> None:
        rows = evaluate(run, datasets=[own], protocols=PROTOCOLS, device=CPU)
        for row, counts in zip(rows, recounted(run, rows, own), strict=True):
            curves = {name: getattr(row, f"curve_{name}") for name in vars(counts)}
            if row.protocol.startswith("flexible"):
                assert all(np.array_equal(curve, getattr(counts, name)) for name, curve in curves.items())
            else:
                assert set(curves.values()) == {None}

    def test_name_the_run_and_its_data(self, run: Path, own: Dataset) -> None:
        (row, *_) = rows = evaluate(run, datasets=[own], device=CPU)
        assert {row.protocol for row in rows} == {"tolerant:2", "pixel"}, "by default the recipe's own"
        assert (row.run_id, row.recipe, row.seed, row.dataset, row.split) == (
            "run",
            "tiny",
            0,
            "synthetic",
            "test",
        )
        assert (row.configuration, row.data_digest) == (RECIPE.configuration, content_digest([own]))

    def test_of_a_protocol_named_twice_are_there_once(self, run: Path, own: Dataset) -> None:
        assert len(evaluate(run, datasets=[own], protocols=[Pixel(), Pixel()], device=CPU)) == 4

    def test_stand_in_the_store_beside_those_of_before(self, run: Path, own: Dataset) -> None:
        first = evaluate(run, datasets=[own], protocols=[Pixel()], device=CPU)
        second = evaluate(run, datasets=[own], protocols=[Overlap()], split="val", device=CPU)
        again = evaluate(run, datasets=[own], protocols=[Pixel()], device=CPU)
        assert again == first
        (record,) = read_runs([run]).records
        assert record.manifest.run_id == "run"
        kept = {(row["split"], row["protocol"], row["image"]): row["f1"] for row in record.table.to_pylist()}
        assert len(kept) == record.table.num_rows == 7
        assert kept == {(row.split, row.protocol, row.image): row.f1 for row in (*first, *second)}

    def test_are_told_one_by_one(self, run: Path, own: Dataset) -> None:
        seen: list[tuple[int, int]] = []
        evaluate(run, datasets=[own], threshold=0.5, device=CPU, on_image=lambda *at: seen.append(at))
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_equal_the_scores_of_the_folders(self, run: Path, own: Dataset, tmp_path: Path) -> None:
        rows = evaluate(run, datasets=[own], protocols=PROTOCOLS, device=CPU)
        (tmp_path / "masks").mkdir()
        for sample in own.samples():
            if sample.split == "test":
                shutil.copy(sample.mask, tmp_path / "masks" / f"{sample.name}.png")
        for protocol in PROTOCOLS:
            mine = [row for row in rows if row.protocol == str(protocol)]
            scored = score_folders(
                run / "predictions" / f"synthetic-test-{rows[0].data_digest[:8]}",
                tmp_path / "masks",
                protocol=protocol,
                threshold=mine[0].threshold,
            )
            assert scored.macro.f1 == pytest.approx(float(np.mean([row.f1 for row in mine])))
            sums = {name: sum(getattr(row, name) for row in mine) for name in vars(scored.images[0].counts)}
            precision = sums["true_positive"] / (sums["true_positive"] + sums["false_positive"])
            recall = sums["found"] / (sums["found"] + sums["missed"])
            assert (scored.micro.precision, scored.micro.recall) == pytest.approx((precision, recall))
            assert [image.counts.missed[level_of(mine[0].threshold)] for image in scored.images] == [
                row.missed for row in mine
            ]


class TestStretchedMaps:
    """Maps that are stretched to 0..1 belong to the protocol of the paper that stretches them."""

    OWN = Flexible(distance=2)

    @pytest.fixture
    def stretching(self, run: Path) -> Path:
        """The run of a recipe that stretches its maps."""
        recipe = RECIPE.model_copy(update={"map_range": "min_max", "protocols": (self.OWN, Pixel())})
        with rewriting(run, "recipe.json") as file:
            file.write_text(json.dumps(recipe.plain()))
        return run

    @staticmethod
    def by_hand(predictor: Predictor, image: np.ndarray) -> np.ndarray:
        found = predictor.probability(image).astype(np.float64)
        return np.rint(255 * (found - found.min()) / (found.max() - found.min())).astype(np.uint8)

    def test_are_what_the_papers_own_protocol_scores_and_no_other(
        self, stretching: Path, own: Dataset
    ) -> None:
        rows = evaluate(stretching, datasets=[own], protocols=[self.OWN, Pixel(), Tolerant()], device=CPU)
        predictor = Predictor.open(stretching, device=CPU)
        samples = {sample.name: sample for sample in own.samples()}
        for row in rows:
            image, mask = own.read_image(samples[row.image]), own.read_mask(samples[row.image])
            is_own = row.protocol == "flexible:2"
            probability = self.by_hand(predictor, image) if is_own else predictor(image)
            counts = parse_protocol(row.protocol).count(probability, mask)
            if is_own:  # floats of two precisions may round apart
                assert row.true_positive == pytest.approx(
                    counts.true_positive[level_of(row.threshold)], abs=3
                )
            else:
                assert row.true_positive == counts.true_positive[level_of(row.threshold)]
            assert np.array_equal(stored(stretching, row), predictor(image))

    def test_have_a_threshold_of_their_own_and_a_model_in_use_another(
        self, stretching: Path, own: Dataset
    ) -> None:
        rows = evaluate(stretching, datasets=[own], device=CPU)
        predictor = Predictor.open(stretching, device=CPU)
        val = [sample for sample in own.samples() if sample.split == "val"]
        pooled = {
            name: pool(self.OWN.count(maps(own.read_image(sample)), own.read_mask(sample)) for sample in val)
            for name, maps in (
                ("as they are", predictor),
                ("stretched", lambda image: self.by_hand(predictor, image)),
            )
        }
        (kept,) = {row.threshold for row in rows if row.protocol == "flexible:2"}
        assert kept == pytest.approx(best_threshold(pooled["stretched"]), abs=1.5 / 255)
        used = threshold_of(stretching, predictor.recipe)
        assert used == best_threshold(pooled["as they are"])
        assert open_model(stretching, device=CPU).card["threshold"] == used

    def test_of_a_run_that_was_evaluated_before_there_was_one_for_use_it_is_chosen_the_next_time(
        self, stretching: Path, own: Dataset, other: Dataset
    ) -> None:
        with rewriting(stretching, "thresholds.json") as file:
            file.write_text('{"flexible:2": 0.5, "pixel": 0.5}')
        with pytest.raises(DataError, match="flexible:2, maps as they are"):
            open_model(stretching, device=CPU)
        assert {row.threshold for row in evaluate(stretching, datasets=[other], device=CPU)} == {0.5}
        assert {row.threshold for row in evaluate(stretching, datasets=[own], device=CPU)} == {0.5}
        assert open_model(stretching, device=CPU).card["threshold"] > 0

    def test_are_not_what_a_model_in_use_gives_so_that_an_image_without_a_crack_has_none(self) -> None:
        recipe = RECIPE.model_copy(update={"map_range": "min_max", "protocols": (self.OWN, Pixel())})
        predictor = Predictor(recipe, Darkness(), CPU)
        grain = np.random.default_rng(0).normal(0, 8, (64, 64, 1))
        wall = np.repeat(np.clip(170 + grain, 0, 255), 3, axis=2).astype(np.uint8)
        cracked = wall.copy()
        cracked[30:33] = 40
        assert (self.by_hand(predictor, wall) >= 128).mean() > 0.2
        assert not (predictor(wall) >= 128).any()
        assert np.array_equal(predictor(cracked) >= 128, (cracked == 40).all(axis=2))


class Darkness(Segmenter):
    """Takes what is dark for a crack: 100 of 255 and darker."""

    stride, feature_channels = 1, 3

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def head(self, features: torch.Tensor) -> torch.Tensor:
        return 3 * (100 / 255 - features.mean(dim=1, keepdim=True))


class TestThreshold:
    def test_is_the_best_of_the_validation_images(self, run: Path, own: Dataset) -> None:
        rows = evaluate(run, datasets=[own], protocols=PROTOCOLS, device=CPU)
        predictor = Predictor.open(run, device=CPU)
        for protocol in PROTOCOLS:
            counts = [
                protocol.count(predictor(own.read_image(sample)), own.read_mask(sample))
                for sample in own.samples()
                if sample.split == "val"
            ]
            mine = [row for row in rows if row.protocol == str(protocol)]
            assert {row.threshold for row in mine} == {best_threshold(pool(counts))}
            assert {row.threshold_source for row in mine} == {"validation"}

    def test_does_not_see_the_test_masks(self, run: Path, own: Dataset, drawn: Path, tmp_path: Path) -> None:
        turned = Path(shutil.copytree(drawn, tmp_path / "set"))
        for path in (turned / "masks" / "test").iterdir():
            Image.fromarray(255 - np.array(Image.open(path))).save(path)
        dataset = parse_dataset(f"synthetic:{turned}")
        twin = train(dataset, tmp_path / "twin")
        scores = [
            evaluate(each, datasets=[data], protocols=PROTOCOLS, device=CPU)
            for each, data in ((run, own), (twin, dataset))
        ]
        assert [row.threshold for row in scores[0]] == [row.threshold for row in scores[1]]
        assert [row.f1 for row in scores[0]] != [row.f1 for row in scores[1]]
        assert (run / "thresholds.json").read_text() == (twin / "thresholds.json").read_text()

    def test_is_chosen_once_and_kept(self, run: Path, own: Dataset) -> None:
        chosen = evaluate(run, datasets=[own], protocols=[Pixel()], device=CPU)[0].threshold
        assert json.loads((run / "thresholds.json").read_text()) == {"pixel": chosen}
        with rewriting(run, "thresholds.json") as file:
            file.write_text('{"pixel": 0.25}')
        rows = evaluate(run, datasets=[own], protocols=[Pixel(), Overlap()], device=CPU)
        assert {row.threshold for row in rows if row.protocol == "pixel"} == {0.25}
        assert set(json.loads((run / "thresholds.json").read_text())) == {"pixel", "overlap"}

    def test_that_is_given_is_taken_and_not_kept(self, run: Path, own: Dataset) -> None:
        rows = evaluate(run, datasets=[own], protocols=PROTOCOLS, threshold=0.3, device=CPU)
        assert {(row.threshold, row.threshold_source) for row in rows} == {(0.3, "given")}
        assert_rows_follow_from_the_maps(run, rows, own)
        assert not (run / "thresholds.json").exists()

    @pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
    def test_that_is_no_probability_is_refused_at_once(
        self, run: Path, own: Dataset, threshold: float
    ) -> None:
        with pytest.raises(DataError, match="a threshold is a probability"):
            evaluate(run, datasets=[own], threshold=threshold, device=CPU)
        assert not (run / "predictions").exists()

    def test_is_not_chosen_on_other_data(self, run: Path, other: Dataset) -> None:
        with pytest.raises(DataError, match=r"a threshold for tolerant:2, pixel .* or give --threshold"):
            evaluate(run, datasets=[other], device=CPU)
        assert not (run / "run.parquet").exists()

    def test_kept_with_the_run_serves_other_data(self, run: Path, own: Dataset, other: Dataset) -> None:
        (row, *_) = evaluate(run, datasets=[own], device=CPU)
        (elsewhere, *_) = evaluate(run, datasets=[other], device=CPU)
        assert (elsewhere.threshold, elsewhere.threshold_source) == (row.threshold, "validation")
        assert elsewhere.data_digest != row.data_digest


class TestBadImages:
    def test_are_all_named_and_nothing_is_half_written(self, run: Path, own: Dataset, other: Dataset) -> None:
        evaluate(run, datasets=[own], device=CPU)
        before = (run / "run.parquet").read_bytes()
        bad = [
            other.root / "images/test/0001.png",
            other.root / "masks/test/0001.png",
            other.root / "images/test/0003.png",
        ]
        for path in bad:
            path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DataError) as caught:
            evaluate(run, datasets=[other], threshold=0.5, device=CPU)
        assert len(caught.value.problems) == len(bad)
        assert [any(str(path) in problem for problem in caught.value.problems) for path in bad] == [True] * 3
        assert (run / "run.parquet").read_bytes() == before

    def test_leave_no_table_where_there_was_none(self, run: Path, other: Dataset) -> None:
        (other.root / "images/test/0003.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"0003\.png"):
            evaluate(run, datasets=[other], threshold=0.5, device=CPU)
        assert not (run / "run.parquet").exists()

    def test_a_split_without_images_is_refused(self, run: Path, drawn: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(drawn, tmp_path / "set"))
        for folder in ("images", "masks"):
            shutil.rmtree(copy / folder / "test")
        with pytest.raises(DataError, match="no test images"):
            evaluate(run, datasets=[parse_dataset(f"synthetic:{copy}")], threshold=0.5, device=CPU)


def test_a_run_that_is_not_finished_is_refused(run: Path, own: Dataset) -> None:
    (run / "manifest.json").unlink()
    with pytest.raises(DataError, match="no finished run"):
        evaluate(run, datasets=[own], device=CPU)
    mistyped = run.with_name(run.name[:-1])
    with pytest.raises(DataError) as caught:
        evaluate(mistyped, datasets=[own], device=CPU)
    assert str(caught.value) == f"{mistyped}: there is no such folder; did you mean `{run}`?"


class TestFieldOfView:
    @pytest.fixture
    def viewed(self, drawn: Path, tmp_path: Path) -> Dataset:
        """The same images, of which only a disk counts."""
        copy = Path(shutil.copytree(drawn, tmp_path / "viewed"))
        rows, columns = np.mgrid[:42, :50]
        disk = ((rows - 20) ** 2 + (columns - 25) ** 2 < 15**2).astype(np.uint8)
        for path in (copy / "images").rglob("*.png"):
            valid = copy / "valid" / path.relative_to(copy / "images")
            valid.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(disk * 255).save(valid)
        return parse_dataset(f"folder:{copy}")

    def test_is_all_that_counts(self, run: Path, viewed: Dataset) -> None:
        rows = evaluate(run, datasets=[viewed], protocols=PROTOCOLS, threshold=0.4, device=CPU)
        assert_rows_follow_from_the_maps(run, rows, viewed)
        for sample, row in zip(
            [sample for sample in viewed.samples() if sample.split == "test"],
            [row for row in rows if row.protocol == "pixel"],
            strict=True,
        ):
            inside = np.array(Image.open(viewed.root / f"valid/test/{sample.image.name}")) == 255
            predicted = stored(run, row) / 255 >= 0.4
            crack = viewed.read_mask(sample) == 1
            assert row.crack_pixels == int((crack & inside).sum()) < int(crack.sum())
            assert row.true_positive == int((predicted & crack & inside).sum())
            assert row.false_positive == int((predicted & ~crack & inside).sum())
            assert row.missed == int((~predicted & crack & inside).sum())

    def test_what_is_drawn_outside_changes_no_count(self, run: Path, viewed: Dataset) -> None:
        before = evaluate(run, datasets=[viewed], protocols=PROTOCOLS, threshold=0.4, device=CPU)
        for path in (viewed.root / "masks" / "test").iterdir():
            mask = np.array(Image.open(path))
            mask[:4], mask[:, -6:] = 255, 255
            Image.fromarray(mask).save(path)
        after = evaluate(run, datasets=[viewed], protocols=PROTOCOLS, threshold=0.4, device=CPU)
        for one, other in zip(before, after, strict=True):
            assert (one.true_positive, one.false_positive, one.found, one.missed, one.crack_pixels) == (
                other.true_positive,
                other.false_positive,
                other.found,
                other.missed,
                other.crack_pixels,
            )


def with_data(**values: object) -> Recipe:
    return RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update=values)})


class TestValidation:
    """The judgement of an epoch."""

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_is_the_literal_one(self, run: Path, own: Dataset, drawn: Path, batch_size: int) -> None:
        predictor, protocol = Predictor.open(run, device=CPU), Tolerant(distance=2)
        predictor.model.train()  # as an epoch leaves it
        judged = validate(
            PhaseObjective(predictor.model, DiceBCE()),
            data=prepare([own], resize=Native(), directory=drawn.parent / "cache"),
            recipe=with_data(batch_size=batch_size),
            device=CPU,
        )
        pairs = [
            (predictor(own.read_image(sample)), own.read_mask(sample))
            for sample in own.samples()
            if sample.split == "val"
        ]
        pooled = pool(protocol.count(probability, mask) for probability, mask in pairs)
        threshold = best_threshold(pooled)
        scores = protocol.score(pooled, level_of(threshold))
        exact = Overlap().score(pool(Overlap().count(*pair) for pair in pairs), 128)
        assert judged["val/threshold"] == threshold
        assert judged["val/f1"] == pytest.approx(scores.f1, abs=1e-3)
        assert judged["val/precision"] == pytest.approx(scores.precision, abs=1e-3)
        assert judged["val/recall"] == pytest.approx(scores.recall, abs=1e-3)
        assert (judged["val/dice"], judged["val/iou"]) == pytest.approx((exact.dice, exact.iou), abs=1e-3)

    def test_loss_is_the_mean_over_batches_and_ignores_the_padding(
        self, run: Path, own: Dataset, drawn: Path
    ) -> None:
        predictor, dice, bce = Predictor.open(run, device=CPU), Dice().build(), BCE().build()
        data = prepare([own], resize=Native(), directory=drawn.parent / "cache")
        judged = validate(
            PhaseObjective(predictor.model, DiceBCE()), data=data, recipe=with_data(batch_size=1), device=CPU
        )
        literal = []
        for index in data.indices("val"):
            wide = np.pad(data.image(index), ((0, 2), (0, 2), (0, 0)), mode="edge")
            unit = torch.from_numpy(wide.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
            with torch.no_grad():
                logits = predictor.model(unit)[..., :42, :50]
            target = torch.from_numpy(data.mask(index).astype(np.float32))[None, None]
            maps = logits, target, torch.ones_like(target)
            literal.append(float(dice(*maps) + bce(*maps)))
        assert judged["val/loss"] == pytest.approx(np.mean(literal), rel=1e-4)

    def test_is_at_the_working_size(self, run: Path, own: Dataset, tmp_path: Path) -> None:
        predictor = Predictor.open(run, device=CPU)
        resize = Fixed(height=24, width=24, masks="nearest")
        judged = validate(
            PhaseObjective(predictor.model, DiceBCE()),
            data=prepare([own], resize=resize, directory=tmp_path / "cache"),
            recipe=with_data(resize=resize).model_copy(update={"protocols": (Pixel(),)}),
            device=CPU,
        )
        counts = [
            Pixel().count(predictor(resize.image(own.read_image(sample))), resize.mask(own.read_mask(sample)))
            for sample in own.samples()
            if sample.split == "val"
        ]
        threshold = best_threshold(pool(counts))
        assert judged["val/threshold"] == pytest.approx(threshold, abs=1e-9)
        assert judged["val/f1"] == pytest.approx(
            Pixel().score(pool(counts), level_of(threshold)).f1, abs=1e-3
        )
