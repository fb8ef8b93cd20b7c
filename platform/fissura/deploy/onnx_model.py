"""A network as an ONNX file: exported, compared with PyTorch on random images, and made smaller with int8."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from fissura.core.errors import FissuraError, UserError

TOLERANCE = 1e-4
ROUNDINGS = 4
BATCH_LIMIT, SIDE_LIMIT = 4096, 16_384

Images = UInt8[np.ndarray, "b h w 3"]
Output = Float32[np.ndarray, "..."]


@dataclass(frozen=True)
class Sides:
    """What sides the images may have that a network is exported for: any multiple of `multiple`, or, where
    the network can only be exported for one size, (height, width) `fixed`."""

    multiple: int
    fixed: tuple[int, int] | None = None

    def shapes(self) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        """Two shapes [b h w 3] to try the network on: of two batches and, where it takes them, two sizes."""
        if self.fixed is not None:
            return (2, *self.fixed, 3), (1, *self.fixed, 3)
        unit = self.multiple * -(-32 // self.multiple)
        return (2, 3 * unit, 4 * unit, 3), (1, 5 * unit, 2 * unit, 3)


@dataclass(frozen=True)
class OutputDifference:
    """How far one network's output is from another's: the largest difference of a value, and the root mean
    square of all differences over that of the values."""

    largest: float
    relative: float


def check_edge() -> None:
    """Looks whether the packages of the extra `edge` are there.

    Raises:
        UserError: one is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"an export needs onnx, onnxscript and onnxruntime, and {error.name} is missing;"
            " install fissura[edge]"
        ) from None


def export_onnx(network: nn.Module, path: Path, *, sides: Sides, output: str) -> float:
    """Writes a network of images uint8 [b h w 3], in evaluation mode on the CPU, as ONNX, its input `images`.

    Gives the largest difference to PyTorch's output on random images of two batches and sizes, over the
    largest value of that output where it is more than 1.

    Raises:
        FissuraError: it is more than `TOLERANCE` and than four times what roundings make of PyTorch's
            own, or the network cannot be exported.
    """
    example, *_ = sides.shapes()
    dimension = torch.export.Dim
    batch = dimension("b", min=1, max=BATCH_LIMIT)
    height, width = (dimension(name, min=1, max=SIDE_LIMIT // sides.multiple) for name in ("h", "w"))
    moving: dict[int, Any] = {0: batch}
    if sides.fixed is None:
        moving |= {1: sides.multiple * height, 2: sides.multiple * width}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (torch.zeros(example, dtype=torch.uint8),),
                dynamo=True,
                dynamic_shapes=(moving,),
                input_names=["images"],
                output_names=[output],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise FissuraError(f"PyTorch cannot export this network to ONNX ({reason})") from error
    assert program is not None  # noqa: S101  None is for dynamo=False
    _write(program.model_proto, path)
    return _checked(network, path, sides=sides)


def run_onnx(path: Path, batches: Sequence[Images]) -> list[Output]:
    """What the network in a file makes of batches of images, with onnxruntime on the CPU."""
    opened = session(path, threads=torch.get_num_threads())
    return [opened.run(None, {"images": batch})[0] for batch in batches]


def session(path: Path, *, threads: int) -> Any:
    """An onnxruntime session on the CPU; `threads` 0 means one a core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantise_onnx(path: Path, target: Path, *, sides: Sides) -> OutputDifference:
    """Writes the network with weights of 8 bits and activations that are quantised as they come; gives how
    far its output is from the float network's on random images.

    Grouped convolutions keep their float weights: those of MobileNetV3 are a tenth of its bytes, and in 8
    bits they make it twice as slow and its features move half as far again.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    grouped = [
        node.name
        for node in onnx.load(path).graph.node
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    with _quiet():
        quantize_dynamic(path, target, weight_type=QuantType.QUInt8, nodes_to_exclude=grouped)
    batches = random_images(sides)
    pairs = zip(run_onnx(path, batches), run_onnx(target, batches), strict=True)
    return _difference([(one.ravel(), other.ravel()) for one, other in pairs])


def random_images(sides: Sides) -> list[Images]:
    """Random images, one batch a shape of `sides`, the same in every call."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in sides.shapes()]


def _checked(network: nn.Module, path: Path, *, sides: Sides) -> float:
    batches = random_images(sides)
    expected = _outputs(network, batches)
    try:
        found = run_onnx(path, batches)
    except Exception as error:  # onnxruntime's errors have no common base
        reason = " ".join(str(error).split())[:300]
        raise FissuraError(f"onnxruntime cannot run the exported network ({reason})") from error
    largest = _largest_difference(expected, found)
    if largest <= TOLERANCE:
        return largest
    rounding = _rounding(network, batches, expected)
    if not largest <= 4 * rounding or np.isinf(largest):
        raise FissuraError(
            f"the exported network must give what PyTorch gives, to {TOLERANCE:g}, and is {largest:.2g} off"
            f" ({rounding:.2g} is what its own rounding makes of it); nothing was written: try another"
            " version of onnxruntime"
        )
    return largest


def _rounding(network: nn.Module, batches: Sequence[Images], expected: Sequence[Output]) -> float:
    """How far outputs move when PyTorch computes with other kernels, or when weights change by a float32's
    rounding: of a network with max-unpooling far, where two values are nearly the greatest."""
    with _quiet(), torch.backends.mkldnn.flags(enabled=False):
        largest = _largest_difference(expected, _outputs(network, batches))
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDINGS):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for weights in moved.parameters():
                noise = torch.randn(weights.shape, generator=generator)
                weights.mul_(1 + torch.finfo(torch.float32).eps * noise)
        largest = max(largest, _largest_difference(expected, _outputs(moved, batches)))
    return largest


def _outputs(network: nn.Module, batches: Sequence[Images]) -> list[Output]:
    with torch.inference_mode():
        return [network(torch.from_numpy(batch)).numpy() for batch in batches]


def _largest_difference(expected: Sequence[Output], found: Sequence[Output]) -> float:
    """Over the largest value that is expected in the same batch, where it is more than 1; NaN counts as
    infinite."""
    largest = 0.0
    for reference, other in zip(expected, found, strict=True):
        scale = max(1.0, float(np.abs(reference).max()))
        difference = float(np.abs(reference - other).max()) / scale
        largest = max(largest, np.inf if np.isnan(difference) else difference)
    return largest


def _difference(pairs: Sequence[tuple[Output, Output]]) -> OutputDifference:
    reference, other = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    size = float(np.sqrt(np.mean(reference**2)))
    moved = float(np.sqrt(np.mean((other - reference) ** 2)))
    return OutputDifference(float(np.abs(other - reference).max()), moved / size if size else 0.0)


def _write(model: Any, path: Path) -> None:
    """Writes the model without what the exporter notes in it: traces of the stack, with the exporting
    machine's paths."""
    import onnx

    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    onnx.checker.check_model(model)
    onnx.save_model(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block the exporter's and the quantiser's remarks about their own insides are not heard."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
