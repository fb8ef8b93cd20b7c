"""Prepared images: what trials read is what the files hold, whatever happened to the cache folder before."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fissura.core.errors import DataError
from fissura.core.spec import digest as digest_plain
from fissura.data.cache import PreparedData, content_digest, default_cache, prepare, prune
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_dataset
from fissura.data.resize import Fixed, Native
from fissura.data.synthetic import SyntheticSpec, write

SPEC = SyntheticSpec(train=4, val=2, test=3, height=48, width=64, crack_width=(1.5, 4))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write(SPEC, folder)
    return folder


@pytest.fixture
def source(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "source"))


@pytest.fixture
def dataset(source: Path) -> Dataset:
    return parse_dataset(f"synthetic:{source}")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def wait_until_settled() -> None:
    """Until any further change of a file shows in its times: before that, the cache trusts none."""
    time.sleep(0.15)


def pixels(prepared: PreparedData) -> list[bytes]:
    return [
        prepared.image(i).tobytes() + prepared.mask(i).tobytes() + prepared.valid(i).tobytes()
        for i in range(len(prepared))
    ]


def caches(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def decoded(action: Callable[[Callable[[int, int], None]], object]) -> int:
    """How many samples an action decodes."""
    seen: list[int] = []
    action(lambda done, total: seen.append(done))
    return len(seen)


@pytest.fixture(scope="session")
def opened() -> Iterator[Callable[[], list[str]]]:
    """Lists the files that this process opened since the last call."""
    paths: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and active[0]:
            paths.append(str(arguments[0]))

    def take() -> list[str]:
        seen, paths[:] = list(paths), []
        return seen

    sys.addaudithook(hook)
    yield take
    active[0] = False


def test_entries_hold_what_the_files_hold(dataset: Dataset, cache: Path) -> None:
    prepared = prepare([dataset], resize=Native(), directory=cache)
    samples = dataset.samples()
    assert [(e.dataset, e.name, e.split, e.group) for e in prepared.entries] == [
        ("synthetic", sample.name, sample.split, sample.group) for sample in samples
    ]
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(prepared.image(index), dataset.read_image(sample))
        np.testing.assert_array_equal(prepared.mask(index), dataset.read_mask(sample))
        np.testing.assert_array_equal(prepared.valid(index), np.ones((48, 64), np.uint8))
    assert {split: len(prepared.indices(split)) for split in ("train", "val", "test")} == {
        "train": 4,
        "val": 2,
        "test": 3,
    }


def test_entries_have_the_working_size(dataset: Dataset, cache: Path) -> None:
    fixed = Fixed(height=32, width=40, masks="nearest")
    prepared = prepare([dataset], resize=fixed, directory=cache)
    for index, sample in enumerate(dataset.samples()):
        np.testing.assert_array_equal(prepared.image(index), fixed.image(dataset.read_image(sample)))
        np.testing.assert_array_equal(prepared.mask(index), fixed.mask(dataset.read_mask(sample)))
        assert prepared.valid(index).shape == (32, 40)


def test_valid_pixels_are_kept(tmp_path: Path, cache: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("training", "testing"):
        for folder in ("images", "masks", "fov"):
            (tmp_path / "drive" / folder / split).mkdir(parents=True)
        for number in (1, 2, 3):
            image = generator.integers(0, 256, (30, 26, 3), dtype=np.uint8)
            mask, valid = (generator.integers(0, 2, (30, 26), dtype=np.uint8) * 255 for _ in "mv")
            for folder, plane in (("images", image), ("masks", mask), ("fov", valid)):
                cv2.imwrite(str(tmp_path / f"drive/{folder}/{split}/{number:02d}.png"), plane)
    drive = parse_dataset(f"drive:{tmp_path / 'drive'}")
    prepared = prepare([drive], resize=Native(), directory=cache)
    for index, sample in enumerate(drive.samples()):
        valid = drive.read_valid(sample)
        assert valid is not None
        np.testing.assert_array_equal(prepared.valid(index), valid)


def test_views_are_read_only_and_share_the_mapped_file(dataset: Dataset, cache: Path) -> None:
    prepared = prepare([dataset], resize=Native(), directory=cache)
    for view in (prepared.image(0), prepared.mask(0), prepared.valid(0)):
        assert view.dtype == np.uint8
        assert not view.flags.writeable
        assert not view.flags.owndata
    assert np.shares_memory(prepared.image(1), prepared.image(1))


def test_other_processes_map_the_same_file(dataset: Dataset, cache: Path) -> None:
    prepared = prepare([dataset], resize=Native(), directory=cache)
    assert len(pickle.dumps(prepared)) < 1000
    again = pickle.loads(pickle.dumps(prepared))  # noqa: S301
    assert (again.entries, pixels(again)) == (prepared.entries, pixels(prepared))


def test_standing_cache_costs_no_reading(
    dataset: Dataset, source: Path, cache: Path, opened: Callable[[], list[str]]
) -> None:
    wait_until_settled()
    first = prepare([dataset], resize=Native(), directory=cache)
    wait_until_settled()
    prepare([dataset], resize=Native(), directory=cache)
    opened()
    assert decoded(lambda see: prepare([dataset], resize=Native(), directory=cache, on_sample=see)) == 0
    assert [path for path in opened() if path.startswith(str(source)) and path.endswith(".png")] == []
    assert prepare([dataset], resize=Native(), directory=cache).digest == first.digest
    assert len(caches(cache)) == 1


def test_moved_set_is_the_same_set(dataset: Dataset, source: Path, cache: Path, tmp_path: Path) -> None:
    digest = prepare([dataset], resize=Native(), directory=cache).digest
    moved = parse_dataset(f"synthetic:{source.rename(tmp_path / 'elsewhere')}")
    assert decoded(lambda see: prepare([moved], resize=Native(), directory=cache, on_sample=see)) == 0
    assert prepare([moved], resize=Native(), directory=cache).digest == digest


def test_two_sets_may_hold_the_same_names(dataset: Dataset, tmp_path: Path, cache: Path) -> None:
    write(SyntheticSpec.load({**SPEC.plain(), "seed": 1}, source="test"), tmp_path / "other")
    other = parse_dataset(f"synthetic:{tmp_path / 'other'}")
    prepared = prepare([dataset, other], resize=Native(), directory=cache)
    assert [entry.dataset for entry in prepared.entries] == ["synthetic"] * 9 + ["synthetic-2"] * 9
    first, second = prepared.entries[0], prepared.entries[9]
    assert first.name == second.name
    assert np.any(prepared.image(0) != prepared.image(9))
    assert len(prepared.indices("train")) == 8


def test_progress_counts_samples(dataset: Dataset, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare([dataset], resize=Native(), directory=cache, on_sample=lambda *at: seen.append(at))
    assert seen == [(done, 9) for done in range(1, 10)]


# What changes the digest


def test_changed_source_of_equal_size_and_time_is_another_set(
    dataset: Dataset, source: Path, cache: Path
) -> None:
    path = source / "masks/train/0001.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), mask, (cv2.IMWRITE_PNG_COMPRESSION, 0))
    wait_until_settled()
    before = prepare([dataset], resize=Native(), directory=cache)
    old = path.stat()
    cv2.imwrite(str(path), 255 - mask, (cv2.IMWRITE_PNG_COMPRESSION, 0))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = prepare([dataset], resize=Native(), directory=cache)
    assert after.digest != before.digest
    changed = [new != was for new, was in zip(pixels(after), pixels(before), strict=True)]
    assert sum(changed) == 1
    assert pixels(PreparedData.open(cache, before.digest)) == pixels(before)


def test_resize_names_another_cache_of_the_same_content(dataset: Dataset, cache: Path) -> None:
    digests = {
        prepare([dataset], resize=resize, directory=cache).digest
        for resize in (Native(), Fixed(height=32, width=32), Fixed(height=32, width=48))
    }
    assert len(digests) == 3
    assert content_digest([dataset]) == content_digest([dataset], directory=cache)


def test_content_is_names_splits_and_bytes(dataset: Dataset, source: Path, tmp_path: Path) -> None:
    whole = content_digest([dataset])
    copy = parse_dataset(f"synthetic:{shutil.copytree(source, tmp_path / 'copy')}")
    assert content_digest([copy]) == whole
    assert content_digest([dataset, dataset]) != whole
    for folder in ("images", "masks"):
        (source / folder / "train/0003.png").rename(source / folder / "val/0003.png")
    assert content_digest([dataset]) != whole


@pytest.mark.parametrize("memo", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\x00"])
def test_torn_memo_of_hashes_is_no_memo(dataset: Dataset, cache: Path, memo: bytes) -> None:
    wait_until_settled()
    digest = content_digest([dataset], directory=cache)
    assert (cache / "hashes.json").is_file()
    (cache / "hashes.json").write_bytes(memo)
    assert content_digest([dataset], directory=cache) == digest


# Torn caches


def edit_index(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((place / "index.json").read_text())
    change(index)
    (place / "index.json").write_text(json.dumps(index))


def other_format(place: Path) -> None:
    """As a former version would have written it, seal and all."""
    index = json.loads((place / "index.json").read_text())
    del index["seal"]
    index["format"] = 0
    (place / "index.json").write_text(json.dumps({**index, "seal": digest_plain(index)}))


def flip_byte(place: Path) -> None:
    with (place / "pixels.bin").open("rb+") as file:
        file.seek(70_000)
        byte = file.read(1)[0]
        file.seek(70_000)
        file.write(bytes((byte ^ 4,)))


TEARS: dict[str, Callable[[Path], object]] = {
    "pixels cut short": lambda place: os.truncate(place / "pixels.bin", 100_000),
    "pixels too long": lambda place: os.truncate(place / "pixels.bin", 200_000),
    "pixels empty": lambda place: os.truncate(place / "pixels.bin", 0),
    "pixels missing": lambda place: (place / "pixels.bin").unlink(),
    "index missing": lambda place: (place / "index.json").unlink(),
    "index cut short": lambda place: os.truncate(place / "index.json", 300),
    "index no object": lambda place: (place / "index.json").write_text("[]"),
    "index edited": lambda place: edit_index(place, lambda index: index["entries"][0].update(name="other")),
    "other format": other_format,
    "empty folder": lambda place: [path.unlink() for path in place.iterdir()],
}


@pytest.mark.parametrize("tear", TEARS)
def test_torn_cache_is_not_opened_and_is_built_anew(dataset: Dataset, cache: Path, tear: str) -> None:
    first = prepare([dataset], resize=Native(), directory=cache)
    right = pixels(first)
    TEARS[tear](cache / first.digest)
    with pytest.raises(DataError, match="no whole cache"):
        PreparedData.open(cache, first.digest)
    assert decoded(lambda see: prepare([dataset], resize=Native(), directory=cache, on_sample=see)) == 9
    assert pixels(PreparedData.open(cache, first.digest)) == right
    assert len(caches(cache)) == 1


@pytest.mark.parametrize("verified_before", [False, True])
def test_flipped_byte_is_found_and_mended(dataset: Dataset, cache: Path, verified_before: bool) -> None:
    first = prepare([dataset], resize=Native(), directory=cache)
    right = pixels(first)
    if verified_before:
        wait_until_settled()
        prepare([dataset], resize=Native(), directory=cache)
        assert (cache / first.digest / "verified.json").is_file()
    flip_byte(cache / first.digest)
    assert decoded(lambda see: prepare([dataset], resize=Native(), directory=cache, on_sample=see)) == 9
    assert pixels(PreparedData.open(cache, first.digest)) == right


def test_cache_that_is_not_there_is_said(cache: Path) -> None:
    with pytest.raises(DataError, match="prepare the data again"):
        PreparedData.open(cache, "0123456789abcdef")


# Several processes

BUILDER = """
import sys
from pathlib import Path
from fissura.data.cache import prepare
from fissura.data.datasets import parse_dataset
from fissura.data.resize import Native

source, cache, stop = sys.argv[1:]
count = 0
def on_sample(done, total):
    global count
    count = done
    if stop == str(done):
        print("half-way", flush=True)
        sys.stdin.read()
print("begin", flush=True)
prepare([parse_dataset(f"synthetic:{source}")], resize=Native(), directory=Path(cache), on_sample=on_sample)
print(count, flush=True)
"""


def builder(source: Path, cache: Path, *, stop: str = "never") -> subprocess.Popen[str]:
    """A process that prepares the set, halts for good at sample `stop`, and says how many it decoded."""
    command = [sys.executable, "-c", BUILDER, str(source), str(cache), stop]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_concurrent_builders_build_once(dataset: Dataset, source: Path, cache: Path) -> None:
    builders = [builder(source, cache) for _ in range(3)]
    counts = [int(each.communicate()[0].split()[-1]) for each in builders]
    assert sorted(counts) == [0, 0, 9]
    assert decoded(lambda see: prepare([dataset], resize=Native(), directory=cache, on_sample=see)) == 0


def test_killed_builder_leaves_nothing_that_counts_and_lets_the_next_build(
    dataset: Dataset, source: Path, cache: Path
) -> None:
    killed = builder(source, cache, stop="5")
    assert killed.stdout is not None
    assert [killed.stdout.readline() for _ in range(2)] == ["begin\n", "half-way\n"]
    waiting = builder(source, cache)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "begin\n"
    (scratch,) = caches(cache)
    assert scratch.name.endswith(".tmp")
    assert (scratch / "pixels.bin").stat().st_size > 0
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert waiting.communicate()[0] == "9\n"
    prepared = prepare([dataset], resize=Native(), directory=cache)
    assert caches(cache) == [cache / prepared.digest]
    np.testing.assert_array_equal(prepared.image(8), dataset.read_image(dataset.samples()[8]))


def test_threads_build_once(dataset: Dataset, cache: Path) -> None:
    seen: list[int] = []

    def run(_: int) -> str:
        on_sample = lambda done, total: seen.append(done)  # noqa: E731
        return prepare([dataset], resize=Native(), directory=cache, on_sample=on_sample).digest

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1
    assert seen == list(range(1, 10))


# Errors


def test_all_bad_samples_are_named_at_once_and_nothing_is_left(
    dataset: Dataset, source: Path, cache: Path
) -> None:
    (source / "images/train/0000.png").write_text("no image")
    os.truncate(source / "images/val/0001.png", 900)
    cv2.imwrite(str(source / "masks/test/0002.png"), np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError) as caught:
        prepare([dataset], resize=Native(), directory=cache)
    said = str(caught.value)
    assert all(f"{name}.png" in said for name in ("train/0000", "val/0001", "test/0002"))
    assert caches(cache) == []


def test_problems_of_all_layouts_are_named_at_once(tmp_path: Path, cache: Path) -> None:
    missing = [parse_dataset(f"{kind}:{tmp_path / kind}") for kind in ("cfd", "drive")]
    with pytest.raises(DataError) as caught:
        prepare(missing, resize=Native(), directory=cache)
    assert all(str(tmp_path / kind) in str(caught.value) for kind in ("cfd", "drive"))
    with pytest.raises(DataError, match="at least one data set"):
        prepare([], resize=Native(), directory=cache)
    assert not cache.exists()


FULL = """
import resource, sys
from pathlib import Path
from fissura.core.errors import DataError
from fissura.core.spec import digest as digest_plain
from fissura.data.cache import prepare
from fissura.data.datasets import parse_dataset
from fissura.data.resize import Native

resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    prepare([parse_dataset(f"synthetic:{sys.argv[1]}")], resize=Native(), directory=Path(sys.argv[2]))
except DataError as error:
    print(error)
"""


def test_full_disk_is_one_clear_error_and_leaves_nothing(source: Path, cache: Path) -> None:
    command = [sys.executable, "-c", FULL, str(source), str(cache)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{cache}: prepared images cannot be written here (File too large)")
    assert said.count("\n") == 1
    assert caches(cache) == []


def test_folder_that_cannot_be_made_is_one_clear_error(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="taken: prepared images cannot be written here"):
        prepare([dataset], resize=Native(), directory=tmp_path / "taken")


def test_source_that_changes_while_it_is_prepared_is_refused(
    dataset: Dataset, source: Path, cache: Path
) -> None:
    def meddle(done: int, total: int) -> None:
        if done == total:
            (source / "images/train/0000.png").write_bytes(b"")

    with pytest.raises(DataError, match=r"train/0000\.png: changed while it was prepared"):
        prepare([dataset], resize=Native(), directory=cache, on_sample=meddle)
    assert caches(cache) == []


# Old caches


def test_prune_drops_the_least_recently_used(dataset: Dataset, cache: Path) -> None:
    sizes = [Fixed(height=32, width=32), Fixed(height=32, width=48), Fixed(height=48, width=48)]
    old, used, new = (prepare([dataset], resize=size, directory=cache) for size in sizes)
    (cache / "mine").mkdir()
    (cache / "mine/notes.txt").write_text("not a cache")
    before = pixels(old)
    for place, age in ((old, 300), (used, 200), (new, 100)):
        stamp = time.time_ns() - age * 10**9
        os.utime(cache / place.digest, ns=(stamp, stamp))
    assert prune(cache, keep_bytes=10**9) == 0
    PreparedData.open(cache, used.digest)
    room = sum((path.stat().st_size for path in (cache / used.digest).iterdir()), 1000)
    assert prune(cache, keep_bytes=room) > 9 * 5 * (32 * 32 + 48 * 48)
    assert sorted(caches(cache)) == sorted([cache / used.digest, cache / "mine"])
    assert pixels(old) == before, "who has it open goes on reading it"
    assert prune(cache, keep_bytes=0) > 0
    assert caches(cache) == [cache / "mine"]
    assert prune(cache / "nowhere", keep_bytes=0) == 0


def test_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own/fissura"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache/fissura"
