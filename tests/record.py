"""What a change of structure alone must leave equal, to the byte: recorded before, compared after.

    python tests/record.py FOLDER    # records the first time, compares from then on; 1: something differs

- the weights and losses of a training of each recipe from a fixed seed, on one thread
- the leaderboard of a kept study of each task, in every format
- the service's answers: JSON, and the bytes of its pictures

It goes through the command line alone, so that the version before and the version after run the same script.
The texts of mistakes in search spaces are compared by tests/golden.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from serve_process import FISSURA, asked, photograph, serving

SMALL = (
    "data.resize.kind=native",
    "data.crop.kind=random",
    "data.crop.size=32",
    "data.batch_size=4",
)
RECIPES: dict[str, tuple[str, ...]] = {
    "small_unet": (*SMALL, "model.width=4", "epochs=2"),
    "attention_resunet": (*SMALL, "model.width=4", "data.crop.per_image=2", "epochs=2"),
    "cirl": (*SMALL, "model.width=4", "model.depth=2", "epochs=4", "phases.clustering.loss.gamma=0.05"),
    "jtfn": (*SMALL, "model.width=4", "model.steps=2", "epochs=2"),
    "deepcrack_zou": (*SMALL, "model.width=4", "epochs=2"),
    "deepcrack_liu": (*SMALL, "model.width=4", "epochs=2"),
    "hrsegnet": (*SMALL, "model.width=4", "epochs=2"),
    "dru": (*SMALL, "model.width=4", "model.steps=2", "epochs=2"),
    "crackformer": (*SMALL, "model.width=16", "epochs=2"),
    "resenc": (*SMALL, "model.width=4", "data.crop.per_image=2", "epochs=2"),
    "segformer": (*SMALL, "model.width=16", "model.weights=none", "data.crop.per_image=2", "epochs=2"),
    "vgg_unet": (*SMALL, "model.width=4", "phases.train.loss.terms.topology.loss.weights=none", "epochs=2"),
    "deeplab_focal": (*SMALL, "model.backbone=mobilenet_v3_large", "model.weights=none", "epochs=2"),
    "unet_backbones": (*SMALL, "model.encoder=mobilenet_v2", "model.weights=none", "epochs=2"),
    **dict.fromkeys(("niblack", "sauvola", "frangi", "sato"), ("smallest_crack=20",)),
}
CLASSIFIER = ("backbone.weights=none", "backbone.input_size=32", "backbone.kind=mobilenet_v3", "folds=3")
FORMATS = ("csv", "md", "html", "latex", "parquet")
TIMES = {"seconds", "latency_ms", "images_per_second", "wait_share"}
Facts = dict[str, Any]


def settings(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from ("--set", value)


def fissura(folder: Path, *words: str) -> str:
    """Runs a command in `folder`, on one thread; gives what it printed."""
    done = subprocess.run(
        [FISSURA, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"fissura {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def draw(folder: Path) -> None:
    """Photographs and masks of lines, and the same photographs by class."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for index in range(count):
            image = random.normal(150, 15, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            mask = np.zeros((48, 64), np.uint8)
            if index % 2 == 0:
                column = int(random.integers(8, 56))
                mask[:, column : column + 3] = 255
                image[mask > 0] //= 4
            label = "crack" if index % 2 == 0 else "no_crack"
            for path, pixels in (
                (folder / "walls" / "images" / split / f"{index}.png", image),
                (folder / "walls" / "masks" / split / f"{index}.png", mask),
                (folder / "classes" / label / f"{split}{index}.png", image),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


def trained(folder: Path, recipe: str, values: tuple[str, ...]) -> Facts:
    """The digest of each tensor, and the history, of a training."""
    words = ("--data", "folder:walls", "--cache", "cache", "--storage", f"trained/{recipe}", "--json")
    run = json.loads(fissura(folder, "train", recipe, *words, "--cpus-per-worker", "1", *settings(values)))[
        "run"
    ]
    weights = load_file(folder / run / "weights.safetensors")
    history = json.loads((folder / run / "metrics.json").read_text(encoding="utf-8"))["history"]
    return {
        "weights": {name: digest(tensor.tobytes()) for name, tensor in sorted(weights.items())},
        "history": [{k: v for k, v in epoch.items() if k not in TIMES} for epoch in history],
    }


def keep_studies(folder: Path) -> None:
    """A small study of each task, which stays as the recording version wrote it."""
    common = ("--storage", "kept", "--cache", "cache", "--concurrency", "1")
    fissura(folder, "search", "small_unet", "--data", "folder:walls", "--trials", "3", *common,
            *settings(RECIPES["small_unet"]))  # fmt: skip
    fissura(folder, "search", "cnn_svm", "--data", "class_folder:classes", "--trials", "4",
            "--profile", "none", *common, *settings(CLASSIFIER))  # fmt: skip


def exported(folder: Path) -> Facts:
    """The digest of each leaderboard of the kept studies."""
    out = folder / "exported"
    for form in FORMATS:
        fissura(folder, "leaderboard", "export", "kept", "--format", form, "--out", str(out))
    return {path.name: digest(path.read_bytes()) for path in sorted(out.iterdir())}


def answers(folder: Path) -> Facts:
    """What the best model of each kept study answers."""
    found: Facts = {}
    photo = photograph(200, 310)
    for study, path in (("small_unet", "segment"), ("cnn_svm", "classify")):
        with serving(folder, "--best", f"kept/{study}", "--cpus-per-replica", "1") as service:
            document = asked(service.url, "POST", f"/v1/{path}", photo).document
            found[study] = {name: value for name, value in document.items() if name != "seconds"}
            if path == "segment":
                for form in ("mask", "probability", "overlay"):
                    reply = asked(service.url, "POST", f"/v1/{path}?answer={form}", photo)
                    found[form] = digest(reply.body)
    return found


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """A line for each value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{place}/{name}")
    elif before != after:
        yield f"{place}: {str(before)[:90]} -> {str(after)[:90]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    record = folder / "record.json"
    if not (folder / "kept").exists():
        draw(folder)
        keep_studies(folder)
    for made in ("trained", "exported", "cache"):
        shutil.rmtree(folder / made, ignore_errors=True)
    facts = {
        "trained": {recipe: trained(folder, recipe, values) for recipe, values in RECIPES.items()},
        "exported": exported(folder),
        "answers": answers(folder),
    }
    plain = json.loads(json.dumps(facts))
    if not record.exists():
        record.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        sys.stdout.write(f"recorded: {record}\n")
        return 0
    lines = list(differences(json.loads(record.read_text(encoding="utf-8")), plain))
    sys.stdout.write("\n".join(lines or ["equal, to the byte"]) + "\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
