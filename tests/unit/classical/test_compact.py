"""The file of a small classifier: evaluated as written out, whole or refused, and read by NumPy alone."""

import ast
import io
import itertools
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fissura.classical.compact
from fissura.classical.compact import Compact, CompactError

SOURCE = Path(fissura.classical.compact.__file__)
WIDTH = 7


def kernel_machine(rng: np.random.Generator, kind: str = "rbf", classes: int = 2, **other: Any) -> Compact:
    """A random machine with a projection to 4 coordinates and 9 vectors or frequencies."""
    pairs = classes * (classes - 1) // 2
    arrays = {
        "mean": rng.normal(size=WIDTH),
        "matrix": rng.normal(size=(WIDTH, 4)) / 2,
        "vectors" if kind == "rbf" else "frequencies": rng.normal(size=(9, 4)),
        "coefficients": rng.normal(size=(9, pairs)),
        "intercept": rng.normal(size=pairs),
    }
    if kind == "fourier":
        arrays["phases"] = rng.uniform(0, 6, 9)
    single = {name: array.astype(np.float32) for name, array in arrays.items()} | other
    return make(kind, classes, single)


def forest(rng: np.random.Generator, classes: int = 2, **other: Any) -> Compact:
    """Three trees over columns 5, 0 and 2: a split of splits, a leaf, and one split."""
    leaves = rng.dirichlet(np.ones(classes), 6).astype(np.float32)
    arrays = {
        "columns": np.array([5, 0, 2], np.int32),
        "feature": np.array([0, -1, 1, 2, -1, -1, -1, -1, -1], np.int8),
        "threshold": np.array([0.1, -0.2, 0.3], np.float32),
        "leaves": leaves[:, :-1],
    }
    return make("forest", classes, arrays | other)


def softmax(rng: np.random.Generator, classes: int = 2, **other: Any) -> Compact:
    """A head of random weights."""
    weights = {"coefficients": rng.normal(size=(WIDTH, classes)), "intercept": rng.normal(size=classes)}
    return make("softmax", classes, {name: one.astype(np.float32) for name, one in weights.items()} | other)


def make(kind: str, classes: int, arrays: dict[str, np.ndarray]) -> Compact:
    names = ["sound", "fine", "wide", "gaping"][:classes]
    return Compact(kind, classes=names, labels=list(range(classes)), width=WIDTH, arrays=arrays)


def machines(rng: np.random.Generator) -> list[Compact]:
    return [kernel_machine(rng), kernel_machine(rng, "fourier", 3), forest(rng, 3), softmax(rng, 3)]


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def members(compact: Compact) -> dict[str, bytes]:
    """The members of a classifier's file."""
    with zipfile.ZipFile(io.BytesIO(compact._packed())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def header(**fields: Any) -> bytes:
    known = {"format": 1, "kind": "forest", "classes": ["a", "b"], "labels": [0, 1], "width": WIDTH}
    return npy(np.frombuffer(json.dumps(known | fields).encode(), np.uint8))


def literal(compact: Compact, row: np.ndarray) -> list[float]:
    """The outcome of one sample in double precision, one operation at a time."""
    a = {name: array.astype(float) for name, array in compact._arrays.items()}
    if compact.kind == "forest":
        z = row[compact._arrays["columns"]]
        first = [0.0] * len(compact.labels)
        for node in range(3):
            while (f := compact._arrays["feature"][node]) >= 0:
                inner = int((compact._arrays["feature"][:node] >= 0).sum())
                node = 3 + 2 * inner + int(z[f] > a["threshold"][inner])
            leaf = a["leaves"][int((compact._arrays["feature"][:node] < 0).sum())]
            for label, p in enumerate([*leaf, 1 - sum(leaf)]):
                first[label] += p / 3
        return first
    z = [sum((row[i] - a["mean"][i]) * a["matrix"][i, j] for i in range(WIDTH)) for j in range(4)]
    outcome = list(a["intercept"])
    for k in range(9):
        if compact.kind == "rbf":
            value = np.exp(-sum((z[j] - a["vectors"][k, j]) ** 2 for j in range(4)) / 2)
        else:
            value = np.cos(sum(z[j] * a["frequencies"][k, j] for j in range(4)) + a["phases"][k])
        outcome = [sofar + value * c for sofar, c in zip(outcome, a["coefficients"][k], strict=True)]
    return outcome


class TestEvaluation:
    @pytest.mark.parametrize("kind", ["rbf", "fourier"])
    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_of_a_kernel_machine_is_the_sum_written_out(self, rng, kind, classes):
        compact = kernel_machine(rng, kind, classes)
        features = rng.normal(size=(20, WIDTH)).astype(np.float32)
        expected = [literal(compact, row) for row in features]
        np.testing.assert_allclose(compact.decision(features), expected, atol=1e-5)
        assert compact.decision(features).dtype == np.float32

    @pytest.mark.parametrize("classes", [2, 3])
    def test_of_a_forest_is_the_walk_written_out(self, rng, classes):
        compact = forest(rng, classes)
        features = rng.normal(size=(50, WIDTH)).astype(np.float32)
        expected = np.array([literal(compact, row) for row in features])
        np.testing.assert_allclose(compact.probability(features), expected, atol=1e-6)
        assert (compact.predict(features) == expected.argmax(axis=1)).all()
        pairs = [(0, 1), (0, 2), (1, 2)] if classes == 3 else [(1, 0)]
        differences = np.stack([expected[:, i] - expected[:, j] for i, j in pairs], axis=1)
        np.testing.assert_allclose(compact.decision(features), differences, atol=1e-6)

    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_of_a_softmax_is_the_formula_written_out(self, rng, classes):
        compact = softmax(rng, classes)
        features = rng.normal(size=(20, WIDTH)).astype(np.float32)
        weights, bias = (compact._arrays[name].astype(float) for name in ("coefficients", "intercept"))
        powers = np.exp([[row @ weights[:, k] + bias[k] for k in range(classes)] for row in features])
        expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(compact.probability(features), expected, atol=1e-6)
        assert (compact.predict(features) == expected.argmax(axis=1)).all()
        pairs = list(itertools.combinations(range(classes), 2)) if classes > 2 else [(1, 0)]
        differences = np.stack([expected[:, i] - expected[:, j] for i, j in pairs], axis=1)
        np.testing.assert_allclose(compact.decision(features), differences, atol=1e-6)

    def test_of_a_softmax_neither_overflows_nor_divides_by_nothing(self, rng):
        compact = softmax(rng, coefficients=np.full((WIDTH, 2), [-1e4, 1e4], np.float32))
        row = np.ones((1, WIDTH))
        np.testing.assert_array_equal(compact.probability(row), [[0, 1]])
        np.testing.assert_array_equal(compact.probability(-row), [[1, 0]])
        assert (compact.decision(row), compact.predict(-row)) == (1, 0)
        with pytest.raises(CompactError, match="too large to compute with"):
            compact.predict(np.full((1, WIDTH), 1e38))

    def test_of_a_forest_goes_left_at_the_threshold_itself(self, rng):
        compact = forest(rng)
        row = np.zeros((1, WIDTH), np.float32)
        row[0, 5] = 0.1
        assert (compact.probability(row) == compact.probability(row - np.float32(0.05))).all()

    @pytest.mark.parametrize("signs", list(itertools.product([-1.0, 0.0, 1.0], repeat=3)))
    def test_counts_a_vote_a_pair_and_lets_the_first_of_equals_win(self, rng, signs):
        silent = {"coefficients": np.zeros((9, 3), np.float32), "intercept": np.array(signs, np.float32)}
        compact = kernel_machine(rng, "rbf", 3, **silent)
        votes = [0, 0, 0]
        for (i, j), sign in zip([(0, 1), (0, 2), (1, 2)], signs, strict=True):
            votes[i if sign > 0 else j] += 1
        assert compact.predict(np.zeros((1, WIDTH)))[0] == votes.index(max(votes))

    @pytest.mark.parametrize(("sign", "label"), [(-1.0, 0), (0.0, 1), (1.0, 1)])
    def test_of_two_classes_speaks_for_the_second_from_zero(self, rng, sign, label):
        silent = {"coefficients": np.zeros((9, 1), np.float32), "intercept": np.array([sign], np.float32)}
        assert kernel_machine(rng, **silent).predict(np.zeros((1, WIDTH)))[0] == label

    def test_predicts_the_labels_of_its_classes(self, rng):
        arrays = kernel_machine(rng)._arrays
        compact = Compact("rbf", classes=["x", "y"], labels=[-3, 8], width=WIDTH, arrays=arrays)
        assert set(compact.predict(rng.normal(size=(99, WIDTH))).tolist()) == {-3, 8}

    def test_does_not_depend_on_the_block_or_the_batch(self, rng, monkeypatch):
        features = rng.normal(size=(23, WIDTH)).astype(np.float32)
        for compact in machines(rng):
            whole = compact.decision(features)
            monkeypatch.setattr(fissura.classical.compact, "BLOCK_VALUES", 45)
            np.testing.assert_allclose(compact.decision(features), whole, atol=1e-5)
            monkeypatch.undo()
            single = np.concatenate([compact.decision(row[None]) for row in features])
            np.testing.assert_allclose(single, whole, atol=1e-5)
            assert compact.decision(features[:0]).shape == (0, whole.shape[1])
            assert compact.predict(features[:0]).shape == (0,)

    def test_of_int8_arrays_is_that_of_their_values(self, rng):
        whole = rng.integers(-127, 128, (9, 4)).astype(np.int8)
        step = np.array([0.01, 0.02, 0.005, 0.01], np.float32)
        arrays = kernel_machine(rng)._arrays
        small = make("rbf", 2, arrays | {"vectors": whole, "vectors_step": step})
        large = make("rbf", 2, arrays | {"vectors": whole * step})
        features = rng.normal(size=(9, WIDTH))
        np.testing.assert_array_equal(small.decision(features), large.decision(features))

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.zeros((3, WIDTH + 1)), r"\[n, 7\], are \[3, 8\]"),
            (np.zeros(WIDTH), r"are \[7\]"),
            (np.full((1, WIDTH), np.nan), "must be finite"),
            (np.full((1, WIDTH), np.inf), "must be finite"),
        ],
    )
    def test_names_features_that_do_not_fit(self, rng, features, message):
        with pytest.raises(CompactError, match=message):
            kernel_machine(rng).predict(features)

    def test_names_features_too_large_to_compute_with(self, rng):
        steep = {"matrix": 100 * rng.normal(size=(WIDTH, 4)).astype(np.float32)}
        with pytest.raises(CompactError, match="too large to compute with"):
            kernel_machine(rng, **steep).predict(np.full((1, WIDTH), 1e38))

    def test_of_a_sample_far_from_everything_is_its_intercept(self, rng):
        compact = kernel_machine(rng)
        expected = compact._arrays["intercept"][None]
        np.testing.assert_array_equal(compact.decision(np.full((1, WIDTH), 1e6)), expected)

    def test_has_no_probabilities_of_a_kernel_machine(self, rng):
        with pytest.raises(CompactError, match="a forest or a softmax has one, and this is `rbf`"):
            kernel_machine(rng).probability(np.zeros((1, WIDTH)))


class TestFile:
    def test_gives_the_same_classifier_back(self, rng, tmp_path):
        features = rng.normal(size=(9, WIDTH))
        for compact in machines(rng):
            compact.save(tmp_path / "classifier.npz")
            found = Compact.load(tmp_path / "classifier.npz")
            assert vars(found).keys() == vars(compact).keys()
            assert (found.kind, found.classes, found.labels) == (
                compact.kind,
                compact.classes,
                compact.labels,
            )
            np.testing.assert_array_equal(found.decision(features), compact.decision(features))
            assert found.nbytes == compact.nbytes == (tmp_path / "classifier.npz").stat().st_size
        assert [path.name for path in tmp_path.iterdir()] == ["classifier.npz"]

    def test_is_an_npz_without_pickle_and_always_the_same(self, rng, tmp_path):
        compact = kernel_machine(rng)
        compact.save(tmp_path / "first.npz")
        time.sleep(2.1)  # a zip's times are of two seconds
        compact.save(tmp_path / "second.npz")
        assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
        with np.load(tmp_path / "first.npz", allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["vectors"], compact._arrays["vectors"])
            assert json.loads(arrays["header"].tobytes())["classes"] == ["sound", "fine"]

    def test_that_cannot_be_written_leaves_nothing(self, rng, tmp_path):
        (tmp_path / "folder.npz").mkdir()
        with pytest.raises(OSError):
            kernel_machine(rng).save(tmp_path / "folder.npz")
        assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]

    def test_is_read_by_this_module_and_numpy_alone(self, rng, tmp_path):
        compact = forest(rng)
        compact.save(tmp_path / "classifier.npz")
        features = rng.normal(size=(9, WIDTH)).astype(np.float32)
        np.save(tmp_path / "features.npy", features)
        (tmp_path / "copied.py").write_bytes(SOURCE.read_bytes())
        code = (
            "import sys, numpy; from copied import Compact; "
            "print(Compact.load('classifier.npz').predict(numpy.load('features.npy')).tolist()); "
            "names = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names; "
            "print(sorted(names - {'numpy', 'copied'}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
        )
        predicted, others = done.stdout.splitlines()
        assert predicted == str(compact.predict(features).tolist())
        assert [name for name in ast.literal_eval(others) if not name.startswith("_")] == []

    def test_imports_the_standard_library_and_numpy(self):
        tree = ast.parse(SOURCE.read_text())
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"numpy"}


class TestCraftedFile:
    """A file is data from anyone: what is wrong with it is said, and nothing else happens."""

    def refused(self, path: Path, content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(CompactError, match=message) as caught:
            Compact.load(path)
        assert str(caught.value).startswith(f"{path}: no whole compressed classifier (")
        assert "export it again" in str(caught.value)

    def test_with_any_byte_changed_is_refused_or_the_same(self, rng, tmp_path):
        path = tmp_path / "classifier.npz"
        features = rng.normal(size=(5, WIDTH))
        refused = 0
        for compact in machines(rng):
            whole, expected = compact._packed(), compact.decision(features)
            for place in rng.choice(len(whole), 130, replace=False):
                torn = bytearray(whole)
                torn[place] ^= int(rng.integers(1, 256))
                path.write_bytes(torn)
                try:
                    found = Compact.load(path).decision(features)
                except CompactError:
                    refused += 1
                else:
                    np.testing.assert_array_equal(found, expected)
        assert refused > 200

    def test_cut_short_is_refused(self, rng, tmp_path):
        whole = kernel_machine(rng)._packed()
        for end in range(0, len(whole), 23):
            self.refused(tmp_path / "classifier.npz", whole[:end], ".")

    @given(content=st.binary(max_size=400))
    def test_of_any_bytes_is_refused(self, tmp_path_factory, content):
        self.refused(tmp_path_factory.getbasetemp() / "any.npz", content, ".")

    @given(
        fields=st.dictionaries(
            st.sampled_from(["format", "kind", "classes", "labels", "width", "other"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
                max_leaves=6,
            ),
            min_size=1,
        )
    )
    def test_of_any_header_is_refused_or_runs(self, tmp_path_factory, fields):
        path = tmp_path_factory.getbasetemp() / "header.npz"
        arrays = members(forest(np.random.default_rng(0))) | {"header.npy": header(**fields)}
        path.write_bytes(packed(arrays))
        try:
            found = Compact.load(path)
        except CompactError:
            return
        assert set(found.predict(np.zeros((2, found.width))).tolist()) <= set(found.labels)

    @given(data=st.data())
    def test_of_any_arrays_is_refused_or_runs(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "arrays.npz"
        kind = data.draw(st.sampled_from(["forest", "softmax", "rbf", "fourier"]))
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        made = {"forest": forest, "softmax": softmax}.get(kind)
        arrays = dict((kernel_machine(rng, kind) if made is None else made(rng))._arrays)
        for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)):
            dtype = data.draw(st.sampled_from([arrays[name].dtype.str, "<f4", "|i1", "|u1", "<i4"]))
            shape = data.draw(st.sampled_from([arrays[name].shape, (3,), (2, 2), (), (0,), (9, 1)]))
            bits = rng.integers(0, 256, (int(np.prod(shape)), np.dtype(dtype).itemsize), np.uint8)
            arrays[name] = bits.view(dtype).reshape(shape)
        content = {f"{name}.npy": npy(array) for name, array in arrays.items()}
        path.write_bytes(packed(content | {"header.npy": header(kind=kind)}))
        try:
            outcome = Compact.load(path).decision(rng.normal(size=(3, WIDTH)))
        except CompactError:
            return
        assert np.isfinite(outcome).all()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"format": 2}, "only 1 is known"),
            ({"kind": "boosting"}, "kind: one of"),
            ({"kind": "rbf"}, "vectors: missing"),
            ({"classes": ["a"], "labels": [0]}, "from 2 to 64"),
            ({"classes": ["a"] * 2}, "all different"),
            ({"labels": [1, 0]}, "rising"),
            ({"labels": [0, True]}, "rising"),
            ({"labels": [0, 2**31]}, "rising"),
            ({"width": 4}, "columns: from 0 to 3"),
            ({"width": 2**21}, "width"),
            ({"classes": [str(i) for i in range(65)], "labels": list(range(65))}, "from 2 to 64"),
            ({"other": 1}, "other"),
        ],
    )
    def test_names_what_is_wrong_in_its_header(self, rng, tmp_path, fields, message):
        content = packed(members(forest(rng)) | {"header.npy": header(**fields)})
        self.refused(tmp_path / "classifier.npz", content, message)

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("threshold", np.array([0.1, np.nan, 0], np.float32), "threshold: must be finite"),
            ("threshold", np.zeros(2, np.float32), r"shape \[3\], is float32 \[2\]"),
            ("threshold", np.zeros(3), "threshold: no array as it is written"),
            ("leaves", np.full((6, 1), 1.5, np.float32), "probabilities"),
            ("leaves", np.full((6, 1), -0.1, np.float32), "probabilities"),
            ("columns", np.array([5, 0, 7], np.int32), "columns: from 0 to 6"),
            ("feature", np.array([0, -1, 3, 2, -1, -1, -1, -1, -1], np.int8), "from -1 to 2"),
            ("feature", np.array([0, -2, 1, 2, -1, -1, -1, -1, -1], np.int8), "from -1 to 2"),
            ("feature", np.array([-1, -1, -1, -1, -1, -1, 2, 2, 1], np.int8), "order of their levels"),
            ("feature", np.array([0, 0, 0, 0, 0, 0], np.int8), "not those of trees"),
            ("feature", np.array([0, -1] * 80 + [-1], np.int8), "at most 64 levels"),
            ("feature", np.full(2**22 + 1, -1, np.int8), "at most 4194304 nodes"),
            ("scales", np.zeros(3, np.float32), "unknown for `forest`: scales"),
            ("phases", np.zeros(3, np.float32), "phases: of a `fourier`"),
        ],
    )
    def test_names_the_array_that_is_wrong(self, rng, tmp_path, name, array, message):
        content = packed(members(forest(rng)) | {f"{name}.npy": npy(array)})
        self.refused(tmp_path / "classifier.npz", content, message)

    def test_names_a_missing_array(self, rng, tmp_path):
        content = {name: each for name, each in members(forest(rng)).items() if name != "leaves.npy"}
        self.refused(tmp_path / "classifier.npz", packed(content), "leaves: missing")

    def test_with_a_pickle_is_refused_before_it_is_read(self, rng, tmp_path):
        content = members(forest(rng)) | {"threshold.npy": npy(np.array([print], dtype=object))}
        self.refused(tmp_path / "classifier.npz", packed(content), "threshold: no array as it is written")

    @pytest.mark.parametrize(
        "shape", [b"(999999999, 999999999)", b"(3,) + (1,)", b"(-1,)", b"(" + b"(" * 500, b"(1, 1, 3)"]
    )
    def test_with_a_crafted_shape_is_refused_before_memory_is_taken(self, rng, tmp_path, shape):
        array = npy(np.zeros(3, np.float32))
        text = array[10:128].replace(b"(3,)", shape).ljust(1200)[:-1] + b"\n"
        crafted = array[:8] + len(text).to_bytes(2, "little") + text + array[128:]
        content = packed(members(forest(rng)) | {"threshold.npy": crafted})
        self.refused(tmp_path / "classifier.npz", content, "threshold: (no array|torn)")

    def test_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(self, rng, tmp_path):
        content = packed(members(forest(rng)) | {"threshold.npy": bytes(65 * 2**20)})
        assert len(content) < 100_000
        self.refused(tmp_path / "classifier.npz", content, "at most 64 MiB")

    @pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_packed_another_way_is_refused(self, rng, tmp_path, packing):
        content = packed(members(forest(rng)), packing)
        self.refused(tmp_path / "classifier.npz", content, "not packed as it is written here")

    def test_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(CompactError, match=r"absent\.npz.*No such file"):
            Compact.load(tmp_path / "absent.npz")
