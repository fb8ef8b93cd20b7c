"""A run is what was written: its digests, what opening it checks, and a model that gives no numbers."""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fissura.classification.run import Classifier
from fissura.core.documents import read_sealed
from fissura.core.errors import DataError, ModelError, UserError
from fissura.core.files import sha256, write_json
from fissura.deploy.model import open_model
from fissura.records import run_files
from fissura.records.run_files import (
    MANIFEST,
    check_files,
    facts_of,
    forget,
    read_manifest,
    rewriting,
    write_manifest,
)
from fissura.segmentation.predict import Predictor
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.worker import Worker
from fissura.studies.verification import verify
from fissura.training.checkpoint import WEIGHTS

CPU = torch.device("cpu")
BLACK = np.zeros((32, 32, 3), np.uint8)


def flip(path: Path, *, bit: int | None = None) -> None:
    """Turns one bit of a file, by default one in its middle."""
    content = bytearray(path.read_bytes())
    place = len(content) * 4 if bit is None else bit
    content[place // 8] ^= 1 << (place % 8)
    path.write_bytes(content)


@pytest.fixture
def run(segmenter_run: Path, tmp_path: Path) -> Path:
    """A run of this version: its manifest holds the digests of its files."""
    made = tmp_path / "0123456789abcdef"
    shutil.copytree(segmenter_run, made)
    facts = facts_of(made, ("recipe.json", WEIGHTS))
    write_manifest(made, read_manifest(made).model_copy(update={"files": facts}))
    return made


@pytest.fixture
def classifier(classifier_run: Path, tmp_path: Path) -> Path:
    made = tmp_path / "fedcba9876543210"
    shutil.copytree(classifier_run, made)
    return made


class TestTheManifest:
    def test_holds_the_digest_of_each_file(self, classifier: Path) -> None:
        manifest = read_manifest(classifier)
        files = {path.name for path in classifier.iterdir()} - {MANIFEST}
        assert set(manifest.files) == files == {"recipe.json", WEIGHTS, "classifier.npz", "metrics.json"}
        for name, facts in manifest.files.items():
            content = (classifier / name).read_bytes()
            assert (facts.bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())

    def test_has_one_of_its_own_so_that_no_bit_of_it_can_turn(self, run: Path) -> None:
        path = run / MANIFEST
        whole, expected = path.read_bytes(), read_manifest(run)
        for bit in range(0, 8 * len(whole), 331):
            flip(path, bit=bit)
            with pytest.raises(UserError, match=r"manifest\.json: .*; (restore it|train it)"):
                read_manifest(run)
            path.write_bytes(whole)
        assert read_manifest(run) == expected

    def test_stays_true_when_a_file_is_written_anew_and_at_each_instant_between(self, run: Path) -> None:
        with rewriting(run, "thresholds.json") as scratch:
            scratch.write_text('{"pixel": 0.5}')
        check_files(run, ("thresholds.json",))
        with rewriting(run, "thresholds.json") as scratch:
            scratch.write_text('{"pixel": 0.25}')
            before = (run / "thresholds.json").read_bytes()
        check_files(run, ("thresholds.json",))
        # a process that died after the manifest was written, and before the file took its place
        (run / "thresholds.json").write_bytes(before)
        check_files(run, ("thresholds.json",))
        assert not verify(run).faults
        (run / "thresholds.json").write_text('{"pixel": 0.75}')
        with pytest.raises(
            DataError, match=r"thresholds\.json: is damaged: 15 bytes .*; remove it, then run"
        ):
            check_files(run, ("thresholds.json",))

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("name", ["recipe.json", WEIGHTS])
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_waits_for_no_pipe_and_reads_no_device(self, run: Path, name: str, kind: str) -> None:
        (run / name).unlink()
        if kind == "pipe":
            os.mkfifo(run / name)
        else:
            (run / name).symlink_to("/dev/zero")
        (fault,) = verify(run).faults
        assert fault.startswith(
            f"{run / name}: is missing or cannot be read (it is no regular file); restore"
        )
        with pytest.raises(UserError, match="no regular file"):
            Predictor.open(run, device=CPU)

    def test_forgets_weights_that_are_no_longer_kept(self, run: Path) -> None:
        forget(run, (WEIGHTS,))
        assert not (run / WEIGHTS).exists()
        assert not verify(run).faults

    def test_of_an_earlier_version_opens_and_is_remarked_on(self, segmenter_run: Path) -> None:
        assert not read_manifest(segmenter_run).files
        open_model(segmenter_run, device=CPU)
        found = verify(segmenter_run)
        assert not found.faults
        assert found.remarks == (
            f"{segmenter_run}: a version wrote it that kept no digests; what it scored since is compared",
        )


class TestOpening:
    @pytest.mark.parametrize("name", ["recipe.json", WEIGHTS])
    @pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
    def test_a_segmenter_notices_one_bit(self, run: Path, name: str, share: float) -> None:
        flip(run / name, bit=int(8 * share * (run / name).stat().st_size))
        with pytest.raises(DataError, match=rf"{name}: is damaged: \d+ bytes of SHA-256 .*; restore it"):
            open_model(run, device=CPU)

    @pytest.mark.parametrize("name", ["recipe.json", WEIGHTS, "classifier.npz"])
    def test_a_classifier_notices_one_bit(self, classifier: Path, name: str) -> None:
        open_model(classifier, device=CPU)
        flip(classifier / name)
        with pytest.raises(DataError, match=rf"{name}: is damaged"):
            open_model(classifier, device=CPU)

    def test_again_computes_no_digest_until_a_file_is_touched(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_files._digest.cache_clear()
        hashed: list[Path] = []
        run_files._digest.cache_clear()
        monkeypatch.setattr(run_files, "sha256", lambda path: hashed.append(path) or sha256(path))
        for _ in range(3):
            open_model(run, device=CPU)
        assert sorted(path.name for path in hashed) == ["recipe.json", WEIGHTS]
        os.utime(run / WEIGHTS, ns=(time.time_ns(), time.time_ns()))
        open_model(run, device=CPU)
        assert len(hashed) == 3


class TestVerify:
    def test_names_each_file_that_differs(self, fissura: Callable, classifier: Path) -> None:
        assert fissura("verify", classifier).code == 0
        for name in ("recipe.json", WEIGHTS, "classifier.npz", "metrics.json"):
            flip(classifier / name)
        ended = fissura("verify", classifier)
        assert ended.code == 1
        assert [line.split(": ")[0] for line in ended.out.splitlines()[:4]] == [
            str(classifier / name)
            for name in sorted(["recipe.json", WEIGHTS, "classifier.npz", "metrics.json"])
        ]
        assert "1 run, 5 files: 4 faults" in ended.out

    def test_is_for_runs_and_studies(self, fissura: Callable, tmp_path: Path) -> None:
        ended = fissura("verify", tmp_path)
        assert ended.code == 2
        assert ended.said == [
            f"error: {tmp_path}: neither a run nor a study lies there; name the folder of one"
        ]


class TestAModelThatGivesNoNumbers:
    """Its weights are what was written, and yet no numbers come of them."""

    @staticmethod
    def spoil(run: Path, value: float) -> None:
        tensors = load_file(run / WEIGHTS)
        for tensor in tensors.values():
            if tensor.is_floating_point():
                tensor.fill_(value)
        save_file(tensors, run / WEIGHTS)
        manifest = read_sealed(run / MANIFEST, remedy="")
        write_json(run / MANIFEST, {**manifest, "files": {}})

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_in_its_weights_is_not_opened(self, run: Path, classifier: Path, value: float) -> None:
        for each in (run, classifier):
            self.spoil(each, value)
            with pytest.raises(DataError, match=f"{each.name}/{WEIGHTS}: holds values that are not numbers"):
                open_model(each, device=CPU)

    @pytest.mark.parametrize("value", [3e38, -3e38])
    def test_in_its_output_names_the_run(self, run: Path, value: float) -> None:
        self.spoil(run, value)
        predictor = Predictor.open(run, device=CPU)
        with pytest.raises(ModelError, match=f"{run}: the model gives values that are not numbers"):
            predictor(BLACK)

    def test_of_a_classifier_names_the_run(self, classifier: Path) -> None:
        self.spoil(classifier, 3e38)
        with pytest.raises(ModelError, match=f"{classifier}: the model gives values that are not numbers"):
            Classifier.open(classifier, device=CPU)([BLACK])

    def test_is_the_service_s_failure_and_not_the_image_s(self, run: Path) -> None:
        self.spoil(run, 3e38)
        photograph = BytesIO()
        Image.fromarray(BLACK).save(photograph, format="PNG")
        worker = Worker(open_model(run, device=CPU), Limits())
        reply = asyncio.run(worker.answer(photograph.getvalue(), ImageQuery()))
        worker.close()
        assert reply.problem is not None
        assert reply.problem.status == 500
        assert reply.problem.detail == f"run {run.name} gives values that are none"
