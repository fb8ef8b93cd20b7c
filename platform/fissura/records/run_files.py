"""The files of a run, and checks that they are unchanged.

RUN/manifest.json   sealed (see `core.documents`); its `files` name each other file with its size and SHA-256
RUN/predictions/*/SHA256SUMS   those of the maps beside it, as `sha256sum -c` reads them

The manifest is written last, so that it is what says that a run is finished. What comes later (scores, a
chosen threshold) is written by `rewriting`, which keeps it true. Runs of earlier versions have no digests,
and are taken as they are.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fissura.core.documents import read_sealed, write_sealed
from fissura.core.errors import DataError, ModelError, UserError
from fissura.core.files import near, replacing, sha256
from fissura.records.manifest import FileFacts, Manifest

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
AGAIN = "evaluate the run again"
REMEDIES = {
    "thresholds.json": "remove it, then run `fissura evaluate` on the run's own data",
    "run.parquet": f"remove it, then {AGAIN}",
    "classes.parquet": f"remove it, then {AGAIN}",
}
RESTORE = "restore it from a copy, or remove the run's folder and train it again"


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run directory.

    Raises:
        DataError: the directory holds no finished run.
        SpecError: its manifest is damaged.
    """
    path = run / MANIFEST
    if not run.exists():
        raise DataError(f"{run}: there is no such folder{near(run) or '; name the folder of a run'}")
    if not path.is_file():
        remedy = (
            "it is a study or a storage: name one of the folders below its runs/"
            if (run / "runs").is_dir()
            else "train it, or resume its study"
        )
        raise DataError(f"{run}: holds no finished run (no {MANIFEST}); {remedy}")
    return Manifest.load(read_sealed(path, remedy=RESTORE), source=str(path), remedy=RESTORE)


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Writes a run's manifest, whole or not at all."""
    write_sealed(run / MANIFEST, manifest.plain())


def facts_of(run: Path, names: Iterable[str]) -> dict[str, FileFacts]:
    """Size and digest of a run's existing files."""
    return {name: _facts(run / name) for name in names if (run / name).is_file()}


@contextmanager
def rewriting(run: Path, name: str) -> Iterator[Path]:
    """A scratch path whose file takes the place of a run's file `name`, as `replacing` does; the manifest,
    where there is one, names the new file first and keeps the one before beside it, so that at no instant a
    process can die with a whole file that the manifest does not know."""
    with replacing(run / name) as scratch:
        yield scratch
        if (run / MANIFEST).is_file():
            manifest = read_manifest(run)
            before = manifest.files.get(name)
            kept = {} if before is None else {name: before}
            files = {**manifest.files, name: _facts(scratch)}
            write_manifest(run, manifest.model_copy(update={"files": files, "before": kept}))


def forget(run: Path, names: Iterable[str]) -> None:
    """Removes files of a run that are no longer needed; from the manifest first."""
    existing = [name for name in names if (run / name).is_file()]
    if existing and (run / MANIFEST).is_file():
        with suppress(UserError):  # a damaged manifest is no reason to keep them
            manifest = read_manifest(run)
            remaining = {name: facts for name, facts in manifest.files.items() if name not in existing}
            if remaining != manifest.files:
                write_manifest(run, manifest.model_copy(update={"files": remaining}))
    for name in existing:
        (run / name).unlink(missing_ok=True)


def write_sums(run: Path, folder: Path) -> None:
    """Writes the digests of the maps in a folder of the run's predictions."""
    paths = sorted(folder.rglob("*.png"))
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    with rewriting(run, (folder / SUMS).relative_to(run).as_posix()) as scratch:
        scratch.write_text("".join(lines), encoding="utf-8")


def check_files(run: Path, names: Iterable[str]) -> None:
    """Looks whether files of a run are those that were written: their sizes and digests, which are not
    computed again in this process while a file is not touched.

    Raises:
        DataError: with one line for each that is not.
    """
    if (run / MANIFEST).is_file():
        manifest = read_manifest(run)
        faults = [fault for name in names if (fault := fault_of(run, name, manifest))]
        if faults:
            raise DataError(*faults)


def fault_of(run: Path, name: str, manifest: Manifest) -> str:
    """The fault of a run's file in one line; empty if it has none, or no digest is known."""
    known = [each[name] for each in (manifest.files, manifest.before) if name in each]
    if not known:
        return ""
    path, remedy = run / name, REMEDIES.get(name, RESTORE)
    if name.endswith(SUMS):
        remedy = AGAIN
    try:
        facts = _facts(path)
    except OSError as error:
        remedy = remedy.removeprefix("remove it, then ")
        return f"{path}: is missing or cannot be read ({error.strerror or error}); {remedy}"
    if facts in known:
        return ""
    written = _described(known[0])
    return f"{path}: is damaged: {_described(facts)}, and the run was written with {written}; {remedy}"


def table_fault(table: Path) -> str:
    """The fault of a table of scores, without its path; empty if it is as written."""
    try:
        check_files(table.parent, (table.name,))
    except UserError as error:
        return error.problems[0].removeprefix(f"{table}: ")
    return ""


def faults_of(run: Path) -> list[str]:
    """The faults of a finished run: a line for each file that is not as written.

    Raises:
        UserError: there is no finished run, or its manifest is damaged.
    """
    manifest = read_manifest(run)
    faults = [fault_of(run, name, manifest) for name in manifest.files]
    for name in manifest.files:
        if name.endswith(SUMS) and not fault_of(run, name, manifest):
            faults += _map_faults(run / name)
    return [fault for fault in faults if fault]


def _map_faults(sums: Path) -> list[str]:
    faults = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = sums.parent / name
        try:
            state = "" if sha256(path) == digest else "is damaged (its SHA-256 differs)"
        except OSError as error:
            state = f"is missing or cannot be read ({error.strerror or error})"
        if state:
            faults.append(f"{path}: {state}; {AGAIN}")
    return faults


def _facts(path: Path) -> FileFacts:
    state = path.stat()
    return FileFacts(
        bytes=state.st_size,
        sha256=_digest(path.resolve(), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino),
    )


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int, changed: int, inode: int) -> str:
    """The digest of a file; the arguments beside the path identify its content in the cache."""
    return sha256(path)


def _described(facts: FileFacts) -> str:
    return f"{facts.bytes} bytes of SHA-256 {facts.sha256[:12]}"


def no_numbers(run: Path | None) -> ModelError:
    """The error of a model whose output is not finite."""
    return ModelError(
        f"{run or 'the model'}: the model gives values that are not numbers, so there is no answer; look for"
        " damage with `fissura verify`, restore the run from a copy, or train it again"
    )
