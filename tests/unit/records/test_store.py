"""The store keeps what was scored, merges what is scored anew, and passes over what is no run."""

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fissura.core.errors import DataError
from fissura.records import store
from fissura.records.energy import energy_meter
from fissura.records.manifest import code_version, device_name, library_versions
from fissura.records.run_table import LIMITS
from fissura.records.store import SCHEMA, Row, mean_scores, read_runs


def keys(directory: Path) -> list[tuple[str, str, float]]:
    (record,) = read_runs([directory]).records
    rows = record.table.to_pylist()
    return [(row["protocol"], row["image"], row["threshold"]) for row in rows]


def test_a_run_comes_back_as_it_was_written(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "a", protocols=("pixel", "flexible:2"), images=("001", "002"))
    (record,) = read_runs([tmp_path]).records
    assert record.directory == run
    assert record.manifest.run_id == "a"
    assert record.manifest.seconds == 90
    assert record.manifest.finished == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert record.table.schema == SCHEMA
    pixel, flexible = record.table.to_pylist()[:2]
    assert (pixel["protocol"], pixel["curve_found"]) == ("pixel", None)
    assert pixel["dice"] == pytest.approx(pixel["f1"])
    assert (flexible["protocol"], flexible["dice"]) == ("flexible:2", None)
    assert len(flexible["curve_found"]) == 256
    assert flexible["curve_true_positive"][128] == flexible["true_positive"]


def test_rows_scored_anew_replace_their_like_and_leave_the_others(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "a", protocols=("pixel", "tolerant:2"), images=("001",))
    write_scored_run(run, protocols=("pixel",), images=("001", "002"), threshold=0.25)
    assert sorted(keys(run)) == [("pixel", "001", 0.25), ("pixel", "002", 0.25), ("tolerant:2", "001", 0.5)]
    write_scored_run(run, protocols=("pixel",), images=("009",), split="val")
    assert len(keys(run)) == 4


def test_another_run_is_never_written_over(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "a")
    (run / store.FILE).rename(tmp_path / "kept")
    (tmp_path / "b").mkdir()
    (tmp_path / "kept").rename(tmp_path / "b" / store.FILE)
    before = (tmp_path / "b" / store.FILE).read_bytes()
    with pytest.raises(DataError, match="it holds run 'a', not 'b'; choose another directory"):
        write_scored_run(tmp_path / "b")
    assert (tmp_path / "b" / store.FILE).read_bytes() == before


def test_a_torn_file_is_not_merged_with(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "a")
    whole = (run / store.FILE).read_bytes()
    (run / store.FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a whole Parquet file.*move it away"):
        write_scored_run(run)


def test_a_failed_write_leaves_what_stands(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "a")
    before = (run / store.FILE).read_bytes()
    with pytest.raises(TypeError):
        write_scored_run(run, threshold=0.5, source=pa)  # not text: Arrow refuses it
    assert (run / store.FILE).read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_run_is_named_and_passed_over(tmp_path, write_scored_run):
    good = write_scored_run(tmp_path / "runs" / "good")
    whole = (good / store.FILE).read_bytes()
    bad = {
        "torn": whole[:-20],
        "text": b"this is no Parquet file",
        "empty": b"",
    }
    for name, content in bad.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / store.FILE).write_bytes(content)
    foreign = tmp_path / "runs" / "foreign" / store.FILE
    foreign.parent.mkdir()
    pq.write_table(pa.table({"x": [1]}), foreign)
    bare = tmp_path / "runs" / "bare" / store.FILE
    bare.parent.mkdir()
    pq.write_table(SCHEMA.empty_table(), bare)
    lying = tmp_path / "runs" / "lying" / store.FILE
    lying.parent.mkdir()
    pq.write_table(SCHEMA.empty_table().replace_schema_metadata({"fissura": '{"run_id": 3}'}), lying)

    runs = read_runs([tmp_path])
    assert [record.directory.name for record in runs.records] == ["good"]
    reasons = {skipped.path.parent.name: skipped.reason for skipped in runs.skipped}
    assert set(reasons) == {"torn", "text", "empty", "foreign", "bare", "lying"}
    assert reasons["foreign"] == "its columns are not those of a run"
    assert reasons["bare"] == "it carries no manifest of a run"
    assert reasons["lying"].startswith("its manifest is not valid")
    assert all("Parquet" in reasons[name] for name in ("torn", "text", "empty"))


def test_a_file_that_would_fill_the_memory_is_passed_over(tmp_path, write_scored_run, monkeypatch):
    write_scored_run(tmp_path / "a")
    tight = replace(store.TABLE.form, limits=replace(LIMITS, bytes=100))
    monkeypatch.setattr(store, "TABLE", replace(store.TABLE, form=tight))
    assert "more than the 100 that a run may hold" in read_runs([tmp_path]).skipped[0].reason


def test_a_run_seen_from_two_roots_counts_once(tmp_path, write_scored_run):
    run = write_scored_run(tmp_path / "study" / "runs" / "a")
    roots = [tmp_path, tmp_path / "study", run, run / store.FILE, tmp_path / "study" / ".." / "study"]
    assert len(read_runs(roots).records) == 1


def test_roots_that_do_not_exist_are_all_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read_runs([tmp_path / "x", tmp_path, tmp_path / "y"])
    assert [problem.rpartition("/")[2].partition(":")[0] for problem in caught.value.problems] == ["x", "y"]


def test_the_code_version_names_the_commit_of_a_checkout_and_fails_nowhere(tmp_path):
    release = code_version(tmp_path)
    assert "+g" not in release
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run([*git, "init", "-q"], check=True, env=environment)
    assert code_version(package) == release  # in a repository, but not of it
    subprocess.run([*git, "add", "."], check=True, env=environment)
    subprocess.run([*git, "commit", "-qm", "one"], check=True, env=environment)
    version = code_version(package)
    assert version.startswith(f"{release}+g")
    assert not version.endswith(".dirty")
    (package / "__init__.py").write_text("edited")
    assert code_version(package) == f"{version}.dirty"


def test_libraries_and_device_have_names():
    versions = library_versions(("numpy", "no-such-library"))
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"python", "numpy"}
    assert device_name("cpu")


def powercap(root: Path, **energies: int) -> Path:
    for zone, energy in energies.items():
        folder = root / zone.replace("_", ":").replace("rapl", "intel-rapl")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "energy_uj").write_text(f"{energy}\n")
        (folder / "max_energy_range_uj").write_text("9999999\n")
    return root


def test_energy_is_of_the_packages_across_a_wrap_of_their_counters(tmp_path):
    meter = energy_meter(powercap(tmp_path, rapl_0=9_000_000, rapl_1=0, rapl_0_0=5))
    assert meter.joules() == 0
    powercap(tmp_path, rapl_0=1_000_000, rapl_1=500_000, rapl_0_0=9_000_000)
    assert meter.joules() == pytest.approx(2.5)
    powercap(tmp_path, rapl_0=1_500_000)
    assert meter.joules() == pytest.approx(3.0)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules() is None
    assert meter.joules() is None


def test_without_a_counter_there_is_no_meter(tmp_path):
    assert energy_meter(tmp_path) is None


def scored(name: str, *, digest: str, f1: float, crack_pixels: int) -> Row:
    """One image of a folder of that name."""
    return Row(
        run_id="r", recipe="unet", configuration="c", seed=0, dataset="folder", data_digest=digest,
        split="test", protocol="pixel", threshold=0.5, threshold_source="validation", image="1",
        height=8, width=8, true_positive=1, false_positive=1, found=1, missed=1,
        precision=0.5, recall=0.5, f1=f1, dice=f1, iou=f1, crack_pixels=crack_pixels, data_name=name,
    )  # fmt: skip


def test_the_lines_of_scores_name_each_folder_and_take_no_crack_for_no_success():
    rows = [
        scored("bridge", digest="1a2b3c4d5e", f1=0.4, crack_pixels=9),
        scored("bridge", digest="1a2b3c4d5e", f1=1.0, crack_pixels=0),
        scored("wall", digest="5e6f7a8b9c", f1=1.0, crack_pixels=0),
    ]
    assert mean_scores(rows) == [
        "bridge (1a2b3c4d) test, pixel, threshold 0.5: mean F1 0.4000 of 1 image",
        "wall (5e6f7a8b) test, pixel, threshold 0.5: no crack in these images: false alarms only",
    ]
