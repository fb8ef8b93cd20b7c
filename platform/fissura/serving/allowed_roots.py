"""The folders and prefixes that a client may name; the service opens no others."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from fissura.core.errors import SpecError
from fissura.serving.problems import Problem, Refused

_PREFIX = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://[^/?#%@]+(/[^?#%]*)?")


JOBS = ".fissura-jobs"
"""The folder below a root in which a service keeps its jobs."""
RUN_FILES = ("recipe.json", "weights.safetensors", "study.json")
"""A folder with one of these files is a run or a study."""


class Roots:
    """Allowed roots: folders, and prefixes of object stores such as `s3://bucket/inspections/`. Nothing is
    written into the folders `closed`, nor into their parents.

    Raises:
        SpecError: a root is neither.
    """

    def __init__(self, roots: Sequence[str] = (), *, closed: Sequence[Path] = ()) -> None:
        for root in roots:
            if not root.strip() or ("://" in root and not _PREFIX.fullmatch(root)):
                raise SpecError(
                    f"--root {root!r}: a root is a folder, or a prefix such as s3://bucket/inspections; name"
                    " one of these"
                )
        self._folders = [Path(root).expanduser().resolve() for root in roots if "://" not in root]
        self._prefixes = [f"{root.rstrip('/')}/" for root in roots if "://" in root]
        # a root inside a closed folder may be written
        self._closed = [
            folder for folder in closed if not any(root.is_relative_to(folder) for root in self._folders)
        ]

    def folder(self, text: str, *, what: str) -> Path:
        """The path that a client named, with all links resolved; `what` is its name in an error.

        Raises:
            Refused: it is not below an allowed root.
        """
        path = Path(text)
        if "\0" not in text and "://" not in text and path.is_absolute():
            # circular links, and invalid names
            with suppress(OSError, RuntimeError, ValueError):
                resolved = path.resolve()
                if any(resolved.is_relative_to(root) for root in self._folders):
                    return resolved
        raise _outside(what, text)

    def target(self, text: str, *, what: str) -> Path:
        """The folder that a client named for results.

        Raises:
            Refused: it is not below an allowed root, or belongs to a run, a study or the service.
        """
        path = self.folder(text, what=what)
        try:
            check_target(path, what=what)
        except OSError:  # an invalid name, or an unreadable folder
            raise _outside(what, text) from None
        for folder in self._closed:
            if path.is_relative_to(folder) or folder.is_relative_to(path):
                raise _not_for_results(what, path, f"served runs lie in {folder}")
        return path

    def source(self, text: str, *, what: str) -> str:
        """The folder or object-store prefix that a client named.

        Raises:
            Refused: it is not below an allowed root.
        """
        if "://" not in text:
            return str(self.folder(text, what=what))
        parts = unquote(text).split("://", 1)[1].split("/")
        plain = text.isprintable() and "%" not in text and "?" not in text and "#" not in text
        if (
            plain
            and ".." not in parts
            and any(f"{text.rstrip('/')}/".startswith(prefix) for prefix in self._prefixes)
        ):
            return text
        raise _outside(what, text)


def check_target(path: Path, *, what: str) -> None:
    """Checks that results may go into the folder `path`, whose links are resolved.

    Raises:
        Refused: it is or lies in a folder of a run, a study or the service, or holds the service's jobs.
    """
    if JOBS in path.parts or (path / JOBS).exists():
        raise _not_for_results(what, path, "the service keeps its jobs there")
    for folder in (path, *path.parents):
        if any((folder / name).exists() for name in RUN_FILES):
            raise _not_for_results(what, path, f"{folder} is a run or a study")


def _not_for_results(what: str, path: Path, reason: str) -> Refused:
    return Refused(
        Problem(
            "outside-the-roots",
            f"`{what}` lies below a root, and in no folder of a run, a study or the service",
            f"{str(path)[:200]!r} does not: {reason}",
            "name a folder of its own, such as one beside the images",
        )
    )


def _outside(what: str, text: str) -> Refused:
    return Refused(
        Problem(
            "outside-the-roots",
            f"`{what}` lies below a root that the service was started with",
            f"{text[:200]!r} does not",
            "name an absolute path below one, or start the service with --root FOLDER",
        )
    )
