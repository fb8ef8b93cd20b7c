"""The folders and prefixes that a client may name; nothing else is opened for it."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from fissura.core.errors import SpecError
from fissura.serving.problems import Problem, Refused

_PREFIX = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://[^/?#%@]+(/[^?#%]*)?")


class Roots:
    """Allowed roots: folders, and prefixes of object stores such as `s3://bucket/inspections/`.

    Raises:
        SpecError: a root is neither.
    """

    def __init__(self, roots: Sequence[str] = ()) -> None:
        for root in roots:
            if not root.strip() or ("://" in root and not _PREFIX.fullmatch(root)):
                raise SpecError(
                    f"--root {root!r}: a root is a folder, or a prefix such as s3://bucket/inspections; name"
                    " one of these"
                )
        self._folders = [Path(root).expanduser().resolve() for root in roots if "://" not in root]
        self._prefixes = [f"{root.rstrip('/')}/" for root in roots if "://" in root]

    def folder(self, text: str, *, what: str) -> Path:
        """The path that a client named, with all links followed; `what` is its name in an error.

        Raises:
            Refused: it is not below an allowed root.
        """
        path = Path(text)
        if "\0" not in text and "://" not in text and path.is_absolute():
            # links that lead in a circle, and names that no disk can have
            with suppress(OSError, RuntimeError, ValueError):
                resolved = path.resolve()
                if any(resolved.is_relative_to(root) for root in self._folders):
                    return resolved
        raise _outside(what, text)

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
            and any(f"{text.rstrip('/')}/".startswith(one) for one in self._prefixes)
        ):
            return text
        raise _outside(what, text)


def _outside(what: str, text: str) -> Refused:
    return Refused(
        Problem(
            "outside-the-roots",
            f"`{what}` lies below a root that the service was started with",
            f"{text[:200]!r} does not",
            "name an absolute path below one, or start the service with --root FOLDER",
        )
    )
