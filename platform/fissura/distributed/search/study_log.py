"""The log of a study, `search.log`: lines with their time."""

import threading
import time
from contextlib import suppress

from fissura.studies.study import Study


class StudyLog:
    """Adds lines, from any thread; a line that cannot be written is written with the next one."""

    def __init__(self, study: Study) -> None:
        self._study, self._path = study, study.path / "search.log"
        self._unwritten: list[str] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["StudyLog"], tuple[Study]]:
        """Ray Tune pickles its callbacks; a lock cannot be pickled."""
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
