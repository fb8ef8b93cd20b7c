"""A compressed classifier in one small file, read and evaluated with NumPy alone.

This module imports nothing of the project: an exported bundle holds a copy of it.

The file is an .npz: a zip of plain arrays, `header` (JSON: format, kind, classes, labels, width) among them.
An int8 array `a` has its steps, `a_step`, one a column, and means `a * a_step`. It becomes float32 on
loading, as NumPy multiplies floats tens of times faster than integers.

coordinates  z = (x[:, columns] - mean) @ matrix, or * scale, of the features x; each part may be absent
rbf          exp(-|z - vectors|^2 / 2) @ coefficients + intercept
fourier      cos(z @ frequencies + phases) @ coefficients + intercept
forest       the mean over the trees of the class probabilities of the leaf that z falls into
softmax      class probabilities, exp(y) over its sum, with y = x @ coefficients + intercept, one a class

A forest's nodes are ordered by level, all trees together: `feature` is the coordinate that a node compares,
or -1 at a leaf; the children of the k-th inner node are nodes `trees + 2k` (z <= threshold) and `trees + 2k +
1`. `leaves` has the probabilities of all classes but the last.
"""

import io
import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORMAT = 1
PROBABLE = ("forest", "softmax")  # the kinds whose output is a probability a class
LIMIT_BYTES = 64 * 2**20
LIMIT_CLASSES = 64
LIMIT_DEPTH = 64
LIMIT_WIDTH = 2**20
LIMIT_NODES = 2**22
BLOCK_VALUES = 2**19  # computed at a time: 2 MB, which stay in a core's cache

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]

_NPY = re.compile(
    rb"\{'descr': '([<|][fiu][124])', 'fortran_order': False, 'shape': \(((?:\d{1,9},? ?){0,2})\), \} *\n"
)


class CompactError(ValueError):
    """A file is not a whole compressed classifier, or features do not fit it."""


class Compact:
    """A compressed classifier. `kind`, `classes` (names), `labels` and `width` (features) are public.

    Its methods raise CompactError on features of another width, or not finite, or too large to compute with.
    """

    def __init__(
        self, kind: str, *, classes: Sequence[str], labels: Sequence[int], width: int, arrays: Arrays
    ) -> None:
        """`labels` are what `predict` returns, ascending, one for each of the `classes`; `arrays` as in the
        file.

        Raises:
            CompactError: an array is missing, unknown, not finite, or of the wrong type or shape.
        """
        _check_header(kind, classes, labels, width)
        self.kind, self.classes, self.labels, self.width = kind, tuple(classes), tuple(labels), width
        self._pairs = np.array(list(itertools.combinations(range(len(labels)), 2)))
        self._arrays, left = dict(arrays), _Arrays(arrays)
        if (kind == "fourier") != ("phases" in arrays):
            raise CompactError("phases: of a `fourier` classifier, and of no other")
        bodies: dict[str, type[_Forest | _Softmax]] = {"forest": _Forest, "softmax": _Softmax}
        body: type[_Forest | _Softmax | _Kernel] = bodies.get(kind, _Kernel)
        self._body = body(left, width=width, classes=len(labels))
        if left:
            raise CompactError(f"arrays: unknown for `{kind}`: {', '.join(sorted(left))}")

    def decision(self, features: ArrayLike) -> Floats:
        """Float32 [n, pairs] of `features` [n, width]: a number a pair of classes (i, j), i < j, in order.

        Above 0 it means i, the first; but with two classes the second, as in scikit-learn. For a forest and a
        softmax it is the difference of the two probabilities.
        """
        outputs = self._outputs(features)
        if self.kind not in PROBABLE:
            return outputs
        difference: Floats = outputs[:, self._pairs[:, 0]] - outputs[:, self._pairs[:, 1]]
        return -difference if len(self.labels) == 2 else difference

    def probability(self, features: ArrayLike) -> Floats:
        """Float32 [n, classes] of `features` [n, width], rows that sum to 1; only of a forest or a
        softmax."""
        if self.kind not in PROBABLE:
            raise CompactError(
                f"probability: a forest or a softmax has one, and this is `{self.kind}`; take the decision"
            )
        return self._outputs(features)

    def predict(self, features: ArrayLike) -> NDArray[np.int64]:
        """Int64 [n], the labels of `features` [n, width].

        A forest and a softmax choose the most probable class; the others count a vote a pair. Of equals, the
        first wins.
        """
        votes = outputs = self._outputs(features)
        if self.kind not in PROBABLE:
            second = outputs >= 0 if len(self.labels) == 2 else outputs <= 0
            votes = np.zeros((len(outputs), len(self.labels)), np.float32)
            for (i, j), for_second in zip(self._pairs, second.T, strict=True):
                votes[:, i] += ~for_second
                votes[:, j] += for_second
        labels: NDArray[np.int64] = np.array(self.labels, np.int64)[votes.argmax(axis=1)]
        return labels

    def _outputs(self, features: ArrayLike) -> Floats:
        rows = np.asarray(features, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise CompactError(
                f"features: [n, {self.width}], are {list(rows.shape)}; take those of the backbone that the "
                "classifier was fitted on"
            )
        if not np.isfinite(rows).all():
            raise CompactError("features: must be finite, and some are not; leave out the images they are of")
        outputs = np.empty((len(rows), self._body.outputs), np.float32)
        step = max(1, BLOCK_VALUES // self._body.values_a_row)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), step):
                outputs[start : start + step] = self._body(rows[start : start + step])
        if not np.isfinite(outputs).all():
            raise CompactError("features: too large to compute with; scale them as in training")
        return outputs

    @property
    def nbytes(self) -> int:
        """The size of the file in bytes."""
        return len(self._packed())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, whole or not at all; the same classifier gives the same bytes."""
        scratch = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.tmp")
        try:
            scratch.write_bytes(self._packed())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The classifier in a file of at most 64 MiB, compressed or not. No code in it is run.

        Raises:
            CompactError: the file cannot be read, is torn, or holds anything but a classifier.
        """
        try:
            arrays = _unpack(Path(path))
            header = json.loads(arrays.pop("header").tobytes())
            if header.pop("format") != FORMAT:
                raise CompactError(f"format: only {FORMAT} is known here")
            return cls(arrays=arrays, **header)
        except Exception as error:  # a torn zip or header raises a dozen kinds of error, even RecursionError
            reason = error if isinstance(error, CompactError) else repr(error)
            raise CompactError(
                f"{path}: no whole compressed classifier ({reason}); export it again"
            ) from None

    def _packed(self) -> bytes:
        header = {"format": FORMAT, "kind": self.kind, "classes": self.classes, "labels": self.labels}
        text = json.dumps(header | {"width": self.width}).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in {"header": np.frombuffer(text, np.uint8), **self._arrays}.items():
                member = io.BytesIO()
                np.save(member, array.astype(array.dtype.newbyteorder("<"), order="C"), allow_pickle=False)
                # a ZipInfo without a date, so that the bytes do not depend on the time
                info = zipfile.ZipInfo(f"{name}.npy")
                archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
        return buffer.getvalue()


class _Arrays(dict[str, NDArray[Any]]):
    """The arrays that no part has taken yet; each is checked when it is taken."""

    def take(self, name: str, types: str, *shape: int | None) -> NDArray[Any]:
        """An array of one of `types` and of `shape`, None being any length from 1."""
        array = self.pop(name, None)
        if array is None:
            raise CompactError(f"{name}: missing")
        lengths = tuple(length or max(1, own) for length, own in zip(shape, array.shape, strict=False))
        if array.dtype.str[1:] not in types.split() or array.shape != lengths or len(shape) != array.ndim:
            raise CompactError(
                f"{name}: one of {types}, of shape {list(shape)}, is {array.dtype} {list(array.shape)}"
            )
        if not np.isfinite(array).all():
            raise CompactError(f"{name}: must be finite")
        return array

    def floats(self, name: str, *shape: int | None) -> Floats:
        """A float32 array, or an int8 one times its steps."""
        array = self.take(name, "f4 i1", *shape)
        if array.dtype == np.int8:
            # 1e30 times 127 still fits a float32
            array = array * np.clip(self.take(f"{name}_step", "f4", array.shape[-1]), -1e30, 1e30)
        return np.ascontiguousarray(array, np.float32)


class _Projection:
    """Maps features to coordinates."""

    def __init__(self, arrays: _Arrays, width: int) -> None:
        self.columns = self.mean = self.matrix = self.scale = None
        self.width = width
        if "columns" in arrays:
            self.columns = arrays.take("columns", "i4", None).astype(np.intp)
            self.width = len(self.columns)
            if self.columns.min() < 0 or self.columns.max() >= width:
                raise CompactError(f"columns: from 0 to {width - 1}")
        if "mean" in arrays:
            self.mean = arrays.take("mean", "f4", self.width)
        if "matrix" in arrays:
            self.matrix = arrays.floats("matrix", self.width, None)
            self.width = self.matrix.shape[1]
        elif "scale" in arrays:
            self.scale = arrays.take("scale", "f4", self.width)

    def __call__(self, rows: Floats) -> Floats:
        rows = rows if self.columns is None else rows[:, self.columns]
        rows = rows if self.mean is None else rows - self.mean
        rows = rows if self.scale is None else rows * self.scale
        return rows if self.matrix is None else rows @ self.matrix


class _Kernel:
    """An RBF expansion or a Fourier head."""

    def __init__(self, arrays: _Arrays, *, width: int, classes: int) -> None:
        self.project = _Projection(arrays, width)
        self.outputs = classes * (classes - 1) // 2
        name = "frequencies" if "phases" in arrays else "vectors"
        table = arrays.floats(name, None, self.project.width)
        self.transposed = np.ascontiguousarray(table.T)
        with np.errstate(over="ignore"):
            self.half = np.square(table).sum(axis=1) / 2
        self.phases = arrays.take("phases", "f4", len(table)) if "phases" in arrays else None
        self.coefficients = arrays.floats("coefficients", len(table), self.outputs)
        self.intercept = arrays.take("intercept", "f4", self.outputs)
        self.values_a_row = max(len(table), self.project.width)

    def __call__(self, rows: Floats) -> Floats:
        coordinates = self.project(rows)
        values = coordinates @ self.transposed
        if self.phases is not None:
            values += self.phases
            np.cos(values, out=values)
        else:
            values -= self.half
            values -= np.einsum("nr,nr->n", coordinates, coordinates)[:, None] / 2
            np.minimum(values, 0, out=values)  # rounding can make a distance negative
            np.exp(values, out=values)
        decisions: Floats = values @ self.coefficients + self.intercept
        return decisions


class _Softmax:
    """A number a class, turned into probabilities."""

    def __init__(self, arrays: _Arrays, *, width: int, classes: int) -> None:
        self.coefficients = arrays.floats("coefficients", width, classes)
        self.intercept = arrays.take("intercept", "f4", classes)
        self.outputs, self.values_a_row = classes, max(width, classes)

    def __call__(self, rows: Floats) -> Floats:
        values = rows @ self.coefficients + self.intercept
        values -= values.max(axis=1, keepdims=True)
        np.exp(values, out=values)
        probabilities: Floats = values / values.sum(axis=1, keepdims=True)
        return probabilities


class _Forest:
    """Trees as arrays, all descended at once, a level a step."""

    def __init__(self, arrays: _Arrays, *, width: int, classes: int) -> None:
        self.project = _Projection(arrays, width)
        feature = arrays.take("feature", "i1 i2 i4", None).astype(np.intp)
        inner = np.flatnonzero(feature >= 0)
        self.trees = len(feature) - 2 * len(inner)
        if len(feature) > LIMIT_NODES:
            raise CompactError(f"feature: at most {LIMIT_NODES} nodes")
        children = self.trees + 2 * np.arange(len(inner))
        if feature.min() < -1 or feature.max() >= self.project.width:
            raise CompactError(f"feature: from -1 to {self.project.width - 1}")
        if self.trees < 1 or (children <= inner).any():
            raise CompactError("feature: the nodes are not those of trees in the order of their levels")
        end, self.depth = self.trees, 0
        while end < len(feature):  # a level ends with the children of the last inner node before it
            end, self.depth = self.trees + 2 * int(np.searchsorted(inner, end)), self.depth + 1
            if self.depth > LIMIT_DEPTH:
                raise CompactError(f"feature: at most {LIMIT_DEPTH} levels")
        # a leaf is its own child: no value exceeds its threshold
        self.feature, self.child = np.maximum(feature, 0), np.arange(len(feature))
        self.threshold = np.full(len(feature), np.inf, np.float32)
        self.child[inner] = children
        if len(inner):
            self.threshold[inner] = arrays.take("threshold", "f4 i1", len(inner))
        given = arrays.take("leaves", "f4 u1", len(feature) - len(inner), classes - 1)
        given = given / np.float32(255) if given.dtype == np.uint8 else given
        last = 1 - given.sum(axis=1, keepdims=True)
        if given.min() < 0 or last.min() < -0.01:
            raise CompactError("leaves: probabilities, which add up to 1")
        self.leaf = np.zeros((len(feature), classes), np.float32)
        self.leaf[feature < 0] = np.hstack([given, np.maximum(last, 0)])
        self.outputs, self.values_a_row = classes, max(self.trees, self.project.width)

    def __call__(self, rows: Floats) -> Floats:
        coordinates = self.project(rows)
        flat, start = coordinates.ravel(), (np.arange(len(rows)) * self.project.width)[:, None]
        node = np.broadcast_to(np.arange(self.trees), (len(rows), self.trees))
        for _ in range(self.depth):
            passed = flat.take(start + self.feature.take(node)) > self.threshold.take(node)
            node = self.child.take(node) + passed
        shares: Floats = self.leaf.take(node, axis=0).mean(axis=1, dtype=np.float64).astype(np.float32)
        return shares


def _check_header(kind: object, classes: object, labels: object, width: object) -> None:
    """Checks the header's fields, which may come from anyone."""
    if kind not in ("rbf", "fourier", *PROBABLE):
        raise CompactError("kind: one of rbf, fourier, forest, softmax")
    if type(width) is not int or not 1 <= width <= LIMIT_WIDTH:
        raise CompactError(f"width: from 1 to {LIMIT_WIDTH}")
    names, numbers = (list(field) if isinstance(field, (list, tuple)) else [] for field in (classes, labels))
    if not 2 <= len(names) == len(numbers) <= LIMIT_CLASSES:
        raise CompactError(f"classes, labels: lists of one length, from 2 to {LIMIT_CLASSES}")
    if {type(name) for name in names} != {str} or len(set(names)) < len(names):
        raise CompactError("classes: names, all different")
    if {type(number) for number in numbers} != {int} or numbers != sorted(
        {n for n in numbers if abs(n) < 2**31}
    ):
        raise CompactError("labels: whole numbers below 2^31, rising")


def _unpack(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz by name. Reads at most the limit and evaluates no header."""
    with path.open("rb") as file:
        packed = file.read(LIMIT_BYTES + 1)
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = archive.infolist()
        if len(packed) > LIMIT_BYTES or sum(member.file_size for member in members) > LIMIT_BYTES:
            raise CompactError(f"at most {LIMIT_BYTES // 2**20} MiB, packed or not")
        # other compressions can grow without bound before their size is known
        if len(members) > 16 or not {member.compress_type for member in members} <= {0, zipfile.ZIP_DEFLATED}:
            raise CompactError("not packed as it is written here")
        for member in members:
            name, content = member.filename.removesuffix(".npy"), archive.read(member)
            end = 10 + int.from_bytes(content[8:10], "little")
            match = _NPY.fullmatch(content[10:end])
            if content[:8] != b"\x93NUMPY\x01\x00" or match is None or name in arrays:
                raise CompactError(f"{name}: no array as it is written here")
            shape = tuple(int(length) for length in re.findall(rb"\d+", match[2]))
            dtype = np.dtype(match[1].decode())
            if math.prod(shape) * dtype.itemsize != len(content) - end:
                raise CompactError(f"{name}: torn")
            arrays[name] = np.frombuffer(content, dtype, offset=end).reshape(shape)
    return arrays
