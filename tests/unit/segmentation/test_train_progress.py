"""What a training of one process tells: at its beginning on what it trains, then what is done of an epoch."""

from pathlib import Path

import pytest

from fissura import api
from fissura.core.progress import Reminders
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.training import train_segmenter


def test_a_training_tells_what_it_does_and_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(SyntheticSpec(train=6, val=3, test=1, height=96, width=96), tmp_path / "set")
    said: list[str] = []
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr(train_segmenter, "Reminders", lambda: Reminders(lambda: float(next(now))))

    def train() -> Path:
        return api.train(
            "small_unet",
            data=f"synthetic:{tmp_path / 'set'}",
            storage=tmp_path / "studies",
            cache=tmp_path / "cache",
            fixed={"epochs": 1, "data.batch_size": 2, "data.crop.per_image": 1},
            cpus_per_worker=1,
            on_epoch=lambda record: said.append(f"epoch {record['epoch']}"),
            say=said.append,
        ).run

    run = train()
    begin = said.index(
        "training small_unet on 6 training images and 3 validation images: 1 epoch, on the CPU, with 1 CPU"
    )
    assert said[begin + 1 :] == [
        "epoch 1/1: step 2 of 3, after 20 s",
        "epoch 1/1: 3 of 3 validation images, after 50 s",
        "epoch 1",
    ]
    said.clear()
    assert train() == run
    assert not any("training" in line for line in said), "a finished run is not trained again"
