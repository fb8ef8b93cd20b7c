"""Kills a piece of work at its writes, one after the other, has it go on, and compares what it came to.

    python tests/attacks/write_points.py training|segmenters|classifiers FOLDER STEP

Each try is a process of its own. It is killed at every STEP-th write point, and at the first of each kind:
before a file is opened for writing; while the file that is to take its name is cut in half; when that is
whole and has not its name yet; when half of what was appended is there; before and after a statement that
changes the study's database, and before a commit. Lines of JSON say where it was killed, and last how many
points there are.
"""

import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import torch
import write_imports
from PIL import Image
from sqlalchemy import event
from sqlalchemy.engine import Engine
from write_imports import VARIABLE
from write_works import WORKS

from fissura.data.synthetic import SyntheticSpec, write

TRY_SECONDS = 120
LANES = 2
RANDOM = re.compile(r"\.[0-9a-f]{8}\.tmp|[0-9a-f]{16}-[0-9a-f]+|\.[0-9]+\.tmp")
RUNS = re.compile(r"runs/[^/]+/")
CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")


class Points:
    """Counts the write points of this process below a folder, and kills it at one of them."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self._folder, self._kill_at = f"{folder}/", kill_at
        self.passed: list[str] = []
        self._appended: str | None = None
        sys.addaudithook(self._hook)
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)
        event.listen(Engine, "commit", self._commit)

    def _hook(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in ("open", "os.rename") or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if not isinstance(path, str) or not path.startswith(self._folder):
            return
        if name == "os.rename":
            self._point(f"cut in half: {arguments[1]}", cut=path, share=0.5)
            self._point(f"not renamed yet: {arguments[1]}")
        elif arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            if self._appended is not None:
                self._point(f"half appended: {self._appended}", cut=self._appended, share=0.9)
            self._appended = path if arguments[2] & os.O_APPEND else None
            self._point(f"before: {path}")

    def _before(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._statement("before", statement)

    def _after(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._statement("after", statement)

    def _statement(self, when: str, statement: str) -> None:
        if statement.lstrip().startswith(CHANGES):
            self._point(f"{when} {' '.join(statement.split()[:3])} in the database")

    def _commit(self, _connection: Any) -> None:
        self._point("before a commit in the database")

    def _point(self, what: str, *, cut: str | None = None, share: float = 1.0) -> None:
        self.passed.append(RANDOM.sub("", what.replace(self._folder, "")))
        if len(self.passed) - 1 != self._kill_at:
            return
        if cut is not None and Path(cut).is_file():
            os.truncate(cut, int(Path(cut).stat().st_size * share))
        os.kill(os.getpid(), signal.SIGKILL)


class Tries:
    """The work in processes of their own, forked from one that has imported what the first of them imported,
    and has done nothing: a fork of one with threads may wait for ever."""

    def __init__(self, work: str, folder: Path) -> None:
        self._work, self._folder = work, folder
        self._shared = folder / "shared"
        draw(self._shared)
        status, (whole, self.points, modules) = self._tried(
            multiprocessing.get_context("spawn"), folder / "whole", None
        )
        assert status == 0, "undisturbed it did not end"
        self._whole: dict[str, str] = whole
        imported = folder / "imported"
        imported.write_text("\n".join(modules), encoding="utf-8")
        os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path), VARIABLE: str(imported)}
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload([write_imports.__name__])
        forkserver.ensure_running()  # which two threads must not ask for at once

    def at(self, point: int) -> str:
        """What is wrong after the work was killed at `point` and begun again; or nothing."""
        place = self._folder / f"at-{point:04d}"
        status, _ = self._tried(self._forks, place, point)
        if status != -signal.SIGKILL:
            return f"it ended by itself: {status}"
        status, found = self._tried(self._forks, place, None)
        if status != 0:
            return "it did not go on"
        came_to = found[0]
        different = {name for name in {*came_to, *self._whole} if came_to.get(name) != self._whole.get(name)}
        if not different:
            shutil.rmtree(place)
        return f"it came to other {', '.join(sorted(different))}" if different else ""

    def _tried(self, context: Any, folder: Path, kill_at: int | None) -> tuple[int, Any]:
        out = folder.with_suffix(".json")
        process = context.Process(target=done, args=(self._work, folder, self._shared, kill_at, out))
        process.start()
        process.join(TRY_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{folder}: it did not end within {TRY_SECONDS} s")
        return process.exitcode, json.loads(out.read_text()) if process.exitcode == 0 else None


def done(work: str, folder: Path, shared: Path, kill_at: int | None, out: Path) -> None:
    """Does the work, up to the write point at which it is killed; writes what it came to, the write points
    and what was imported."""
    gc.freeze()
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    points = Points(folder, kill_at)
    facts = {name: json.dumps(value, sort_keys=True) for name, value in WORKS[work](folder, shared).items()}
    modules = [name for name in sys.modules if not name.startswith(("__m", "write_"))]
    out.write_text(json.dumps([facts, points.passed, modules]))


def draw(shared: Path) -> None:
    """The data of all tries."""
    write(
        SyntheticSpec(train=2, val=1, test=1, height=48, width=48, crack_width=(1.5, 4.0)), shared / "cracks"
    )
    greys = np.random.default_rng(0).integers(-9, 9, (12, 32, 32, 3))
    for number, noise in enumerate(greys):
        label, grey = (("crack", 40), ("sound", 200))[number % 2]
        path = shared / "walls" / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grey + noise).astype(np.uint8)).save(path)


def chosen(points: Sequence[str], step: int) -> list[int]:
    """Every `step`-th point, and the first of each kind: of each file's name, whichever run it is of."""
    kinds: dict[str, int] = {}
    for number, what in enumerate(points):
        kinds.setdefault(RUNS.sub("runs/", what), number)
    return sorted({*range(0, len(points), step), *kinds.values()})


def main(work: str, folder: Path, step: int) -> None:
    """All tries."""
    tries = Tries(work, folder)
    numbers = chosen(tries.points, step)
    failed = 0
    with ThreadPoolExecutor(LANES) as lanes:
        at: Callable[[int], str] = tries.at
        for number, wrong in zip(numbers, lanes.map(at, numbers), strict=True):
            failed += bool(wrong)
            print(  # noqa: T201
                json.dumps({"point": number, "killed": tries.points[number], "wrong": wrong}), flush=True
            )
    print(json.dumps({"points": len(tries.points), "tried": len(numbers)}))  # noqa: T201
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3]))
