"""The log of a study, `search.log`: a line each, with its time."""

import threading
import time
from contextlib import suppress

from fissura.studies.study import Study


class StudyLog:
    """Adds lines, from any thread; a line that the storage does not take waits for the next."""

    def __init__(self, study: Study) -> None:
        self._study, self._path = study, study.path / "search.log"
        self._unwritten: list[str] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["StudyLog"], tuple[Study]]:
        """Ray Tune keeps its callbacks with their parts; a lock is of one process alone."""
        return StudyLog, (self._study,)

    def note(self, text: str) -> None:
        """Adds a line."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text.rstrip()}\n"
        with self._lock:
            self._unwritten.append(line)
            with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._unwritten))
                file.flush()
                self._unwritten.clear()
