"""A run as a folder that works without this project: ONNX networks, scripts of NumPy and Pillow, and a card.

Both kinds of bundle hold `card.json`: what the recipe says, the networks' check and speed, and the SHA-256 of
each file.

segmentation     model.onnx: images uint8 [b h w 3], sides multiples of the card's `multiple` -> crack
                 probability float32 [b h w]; `python segment.py FOLDER OUT` writes masks
classification   backbone.onnx: images uint8 [b h w 3] of any size -> features float32 [b d]; classifier.npz;
                 `python classify.py FOLDER` prints the class of each image
"""

import copy
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fissura.classical import compact as compact_module
from fissura.classical.compact import Compact, CompactError
from fissura.classification.run import CLASSIFIER, Classifier
from fissura.core.brief import Brief
from fissura.core.errors import DataError
from fissura.core.files import check_writable, sha256
from fissura.core.rules import no_probability
from fissura.data import file_kinds, whole
from fissura.deploy.export_table import latency_table, network_macs
from fissura.deploy.onnx_model import Sides, check_edge, export_onnx, quantise_onnx
from fissura.deploy.segmentation_card import fixed_size, segmentation_card, working_size
from fissura.models import Segmenter
from fissura.records.manifest import device_name, trained_on
from fissura.records.run_files import MANIFEST, read_manifest
from fissura.segmentation import small_cracks
from fissura.segmentation.evaluation import threshold_of
from fissura.segmentation.predict import Predictor
from fissura.segmentation.recipe import Recipe
from fissura.training.checkpoint import RECIPE
from fissura.training.experiment import task_of_file

FORMAT = 1
README = """# A crack model that runs without fissura

It needs Python 3.11 with three packages: `pip install onnxruntime numpy pillow`

    {usage}

`python {script} --help` lists the options. `card.json` says what the network was trained on, how fast it is,
and the SHA-256 of each file here.
"""
SCRIPTS = Path(__file__).parent / "bundle"
READING = (
    SCRIPTS / "card.py",
    SCRIPTS / "images.py",
    *(Path(str(one.__file__)) for one in (file_kinds, whole)),
)
SEGMENTING = (SCRIPTS / "segment.py", SCRIPTS / "windows.py", Path(str(small_cracks.__file__)))
CLASSIFYING = (SCRIPTS / "classify.py",)

Quantise = Literal["none", "int8"]


@dataclass(frozen=True, repr=False)
class Bundle(Brief):
    """An exported run: its folder, and its card in JSON types."""

    path: Path
    card: dict[str, Any]

    def lines(self) -> list[str]:
        """The folder, and its files."""
        return [f"bundle {self.path}", f"  {', '.join(sorted(self.card['files']))}"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each file, with its SHA-256."""
        return [{"file": name, "sha256": digest} for name, digest in self.card["files"].items()]


class Probability(nn.Module):
    """A segmentation network from pixels to probabilities: normalisation, the network, a sigmoid."""

    def __init__(self, model: Segmenter, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.pipeline = model, recipe.data

    def forward(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b h w"]:
        """The crack probabilities of RGB images whose sides are multiples of the model's stride."""
        logits = self.model(self.pipeline.normalise(images.permute(0, 3, 1, 2)))
        probability: Tensor = logits[:, 0].float().sigmoid()
        return probability


def export_run(
    run: Path, *, out: Path, quantise: Quantise = "none", threshold: float | None = None
) -> Bundle:
    """Exports a finished run to the new folder `out`.

    Args:
        quantise: "int8" adds a copy of the network with int8 weights.
        threshold: crack probability (0..1) of a segmentation; by default the recipe's, or the one that the
            run's evaluation chose on validation images.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing.
        DataError: no finished run; `out` exists; no threshold is known.
        FissuraError: the exported network is not PyTorch's.
    """
    check_edge()
    task = task_of_file(run / RECIPE)
    return task.model.export(run, out=out, quantise=quantise, threshold=threshold)


def export_classification_run(run: Path, *, out: Path, quantise: Quantise) -> Bundle:
    """See `export_run`."""
    origin = _origin(run)
    classifier = Classifier.open(run, device=torch.device("cpu"))
    classifier([np.zeros((64, 64, 3), np.uint8)])  # it gives numbers
    return export_classifier(
        classifier.network,
        run / CLASSIFIER,
        side=classifier.recipe.backbone.input_size,
        recipe=classifier.recipe.plain(),
        origin=origin,
        out=out,
        quantise=quantise,
    )


def export_segmentation_run(run: Path, *, out: Path, quantise: Quantise, threshold: float | None) -> Bundle:
    """See `export_run`."""
    origin = _origin(run)
    predictor = Predictor.open(run, device=torch.device("cpu"))
    predictor(np.zeros((64, 64, 3), np.uint8))  # it gives numbers
    if threshold is None:
        threshold = threshold_of(run, predictor.recipe)
    return export_segmenter(
        predictor.model,
        predictor.recipe,
        threshold=threshold,
        origin=origin,
        out=out,
        quantise=quantise,
    )


def _origin(run: Path) -> dict[str, Any]:
    """What a card says of its run; one that was trained elsewhere may come without its manifest."""
    if not (run / MANIFEST).is_file():
        return {}
    manifest = read_manifest(run)
    return {"run": manifest.run_id, **trained_on(manifest.data)}


def export_segmenter(
    model: Segmenter,
    recipe: Recipe,
    *,
    threshold: float,
    out: Path,
    origin: Mapping[str, Any] = MappingProxyType({}),
    quantise: Quantise = "none",
) -> Bundle:
    """Exports a segmentation network; `origin` is what the card says of its run. See `export_run`."""
    if wrong := no_probability(threshold):
        raise DataError(wrong)
    size = working_size(recipe)
    sides = Sides(model.stride, fixed=fixed_size(recipe, size, model.stride))
    height, width = (-(-side // model.stride) * model.stride for side in size or (512, 512))
    with _writing(out) as folder:
        network = Probability(copy.deepcopy(model).cpu(), recipe).eval()
        card = {
            **segmentation_card(recipe, stride=model.stride, threshold=threshold),
            **origin,
            "sides": None if sides.fixed is None else list(sides.fixed),
            "image": [height, width],
            "macs": network_macs(network, height=height, width=width),
            **_networks(network, folder, "model", sides=sides, output="probability", quantise=quantise),
        }
        _copy(folder, (*SEGMENTING, *READING))
        return _finish(folder, card, out=out)


def export_classifier(
    network: nn.Module,
    classifier: Path,
    *,
    side: int,
    recipe: Mapping[str, Any],
    out: Path,
    origin: Mapping[str, Any] = MappingProxyType({}),
    quantise: Quantise = "none",
) -> Bundle:
    """Exports a backbone, images uint8 [b h w 3] of any size -> features float32 [b d], with the compressed
    classifier on its features.

    Args:
        side: the side in pixels of the square that the backbone resizes images to, and is timed on.
        recipe: the recipe in JSON types, for the card.
        origin: what the card says of its run.

    Raises:
        DataError: the classifier cannot be read, or reads other features; `out` exists.
        FissuraError: the exported backbone is not PyTorch's.
    """
    try:
        compact = Compact.load(classifier)
    except CompactError as error:
        raise DataError(str(error)) from None
    with _writing(out) as folder:
        backbone = copy.deepcopy(network).cpu().eval()
        with torch.inference_mode():
            found = backbone(torch.zeros((1, side, side, 3), dtype=torch.uint8)).shape[1]
        if found != compact.width:
            raise DataError(
                f"{classifier}: reads {compact.width} features, and the backbone gives {found};"
                " export the two of one run"
            )
        card = {
            "task": "classification",
            "recipe": dict(recipe),
            **origin,
            "classes": list(compact.classes),
            "image": [side, side],
            "macs": network_macs(backbone, height=side, width=side),
            "usage": "python classify.py FOLDER",
            **_networks(backbone, folder, "backbone", sides=Sides(1), output="features", quantise=quantise),
        }
        shutil.copyfile(classifier, folder / CLASSIFIER)
        _copy(folder, (*CLASSIFYING, *READING, Path(str(compact_module.__file__))))
        return _finish(folder, card, out=out)


def _networks(
    network: nn.Module, folder: Path, name: str, *, sides: Sides, output: str, quantise: Quantise
) -> dict[str, Any]:
    """Writes the network, and its copy in int8 where asked; gives what the card says of the two."""
    check = {"difference": export_onnx(network, folder / f"{name}.onnx", sides=sides, output=output)}
    if quantise == "none":
        return {"check": check, "quantisation": None}
    moved = quantise_onnx(folder / f"{name}.onnx", folder / f"{name}.int8.onnx", sides=sides)
    return {"check": check, "quantisation": asdict(moved)}


def _copy(folder: Path, scripts: Sequence[Path]) -> None:
    for script in scripts:
        shutil.copyfile(script, folder / script.name)


def _finish(folder: Path, card: dict[str, Any], *, out: Path) -> Bundle:
    """Writes the card, its speed table measured last, and a page for people."""
    (folder / "README.md").write_text(README.format(usage=card["usage"], script=card["usage"].split()[1]))
    libraries = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow")}
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    card = {"format": FORMAT, **card, "files": files, "libraries": libraries, "device": device_name("cpu")}
    _write_card(folder, card)
    card["table"] = [asdict(part) for part in latency_table(folder)]
    _write_card(folder, card)
    return Bundle(out, card)


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "card.json").write_text(f"{text}\n", encoding="utf-8")


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """A scratch folder beside `out` that takes its place when the block ends well, and vanishes when it does
    not."""
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: exists already, and an export overwrites nothing; name a new folder")
    check_writable(out.parent)
    check_edge()
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        scratch.mkdir()
        yield scratch
        os.rename(scratch, out)  # noqa: PTH104  Path.rename cannot be told from a file's
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
