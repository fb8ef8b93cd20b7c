"""The images of a batch: those of a folder, of an object store's prefix, or of a list of files, by name.

Names are relative paths with `/`. What cannot be read (a link that leads out of the folder, a folder that
cannot be listed) has a name too, so that it is reported as a failure.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from fissura.core import text
from fissura.core.errors import DataError, FissuraError, SpecError
from fissura.core.files import near
from fissura.data.file_kinds import SUFFIXES, is_image, is_passed_over, left_out, left_out_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MAX_BYTES = 512 * 2**20
Read = Callable[[], bytes]


@dataclass(frozen=True)
class ImageSource:
    """Images as listed once. Sources of one `label` are the same question; results must stay out of the
    folder `root`, if there is one. `left_out` are the files that are not read because of their suffix.
    """

    label: str
    readers: Mapping[str, Read]
    root: Path | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def open(cls, text: str) -> Self:
        """The images that `text` names: a folder, one file, or a URL such as `s3://bucket/prefix`.

        Raises:
            DataError: the folder, file or prefix does not exist, or has no image.
            SpecError: the URL's store is unknown, or the URL has a password.
            FissuraError: the store cannot be reached.
        """
        source = cls._of_store(text) if "://" in text else cls._of_path(Path(text).expanduser())
        if not source.readers:
            others = f" ({left_out_line(source.left_out)})" if source.left_out else ""
            raise DataError(
                f"{text}: a folder of images holds files of {', '.join(sorted(SUFFIXES))}: there is none"
                f"{others}; name another folder"
            )
        return source

    @classmethod
    def of_files(cls, label: str, files: Iterable[tuple[str, Path]], *, root: Path | None = None) -> Self:
        """The files at these paths, each under its name."""
        return cls(label, {name: partial(read_file, path, name=name) for name, path in files}, root)

    def names(self) -> list[str]:
        """All names, sorted, each once."""
        return sorted(self.readers)

    def read(self, name: str) -> bytes:
        """The bytes of one image, at least 1, at most MAX_BYTES.

        Raises:
            DataError: one line: the image cannot be read; a retry does not help.
            OSError: the store cannot be reached now.
        """
        data = self.readers[name]()
        if not data:
            raise DataError(f"{name}: the file is empty (0 bytes); fetch or copy it again")
        return data

    def check_apart(self, out: Path) -> None:
        """Checks that the results folder `out` lies outside of the images' own.

        Raises:
            DataError: it does not.
        """
        if self.root is not None and out.resolve().is_relative_to(self.root):
            raise DataError(
                f"{out}: results lie outside of the images' folder, or their pictures would be images of the"
                " next batch; name another folder"
            )

    @classmethod
    def _of_path(cls, path: Path) -> Self:
        if not path.exists():
            raise DataError(
                f"{path}: a folder of images, or one image, is expected: it is missing"
                f"{near(path) or '; mend the path'}"
            )
        root = path.resolve()
        if root.is_dir():
            readers, others = _walk(root)
            return cls(str(root), readers, root, others)
        return cls.of_files(str(root), [(path.name, root)])

    @classmethod
    def _of_store(cls, text: str) -> Self:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSelector, FileSystem, FileType

        scheme, _, rest = text.partition("://")
        if "@" in rest.partition("/")[0]:
            raise SpecError(
                f"{scheme}://…: a URL of images holds no password; leave it out, and set the"
                " store's own variables, such as AWS_ACCESS_KEY_ID"
            )
        try:
            store, prefix = FileSystem.from_uri(text)
            if store.type_name == "local":
                return cls._of_path(Path(prefix))
            file_info = store.get_file_info(prefix)
            if file_info.type == FileType.File:
                infos = [file_info]
            else:
                infos = store.get_file_info(FileSelector(prefix, recursive=True))
        except FileNotFoundError:
            raise DataError(f"{text}: nothing lies below this prefix; mend the URL") from None
        except ArrowException as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"{text}: no URL of a known store ({reason}); write s3://BUCKET/PREFIX") from None
        except OSError as error:
            reason = str(error).splitlines()[0][:300]
            raise FissuraError(
                f"{text}: cannot be listed ({reason}); look at the network and the credentials, then go on"
            ) from None
        beginning = (
            len(prefix.rstrip("/").rpartition("/")[0] if infos == [file_info] else prefix.rstrip("/")) + 1
        )
        readers: dict[str, Read] = {}
        for info in infos:
            name = info.path[beginning:]
            if info.type == FileType.File and is_image(name):
                readers[name] = partial(_read_object, store, info.path, name=name)
        others = left_out(info.path[beginning:] for info in infos if info.type == FileType.File)
        return cls(text.rstrip("/"), readers, left_out=others)


def read_file(path: Path, *, name: str, below: Path | None = None) -> bytes:
    """The bytes of a regular file, which must lie below `below` (if given) with all links resolved.

    Raises:
        DataError: one line that begins with `name`: it cannot be read, is not a file, or is too large.
    """
    try:
        real = os.path.realpath(path, strict=True)
        if below is not None and not Path(real).is_relative_to(below):
            raise DataError(
                f"{name}: a link stays inside its folder: this one leads to {real}; copy the file here"
            )
        # O_NONBLOCK: opening a pipe would block
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:  # noqa: PTH123  of a descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{name}: an image is a regular file: this is none; remove or rename it")
            return _bounded(name, file, size=status.st_size)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}); mend it or remove it") from None


def _bounded(name: str, file: Any, *, size: int | None) -> bytes:
    data: bytes = file.read(MAX_BYTES + 1) if size is None or size <= MAX_BYTES else b""
    if len(data) > MAX_BYTES or (size or 0) > MAX_BYTES:
        raise DataError(
            f"{name}: an image has at most {text.size(MAX_BYTES)}: this one has"
            f" {text.size(size or len(data))} or more; cut it into tiles"
        )
    return data


def _read_object(store: "FileSystem", path: str, *, name: str) -> bytes:
    if {"", ".", ".."} & set(name.split("/")) or "\0" in name:
        raise DataError(f"{name!r}: a name is a plain relative path; rename the object")
    try:
        with store.open_input_stream(path) as stream:
            return _bounded(name, stream, size=None)
    except (FileNotFoundError, PermissionError) as error:
        reason = str(error).splitlines()[0][:300]
        raise DataError(f"{name}: cannot be read ({reason}); mend it or remove it") from None


def _walk(root: Path) -> tuple[dict[str, Read], tuple[str, ...]]:
    """The images below `root`, and the files that are left out because of their suffix. Hidden files and
    those of operating systems are ignored."""
    readers: dict[str, Read] = {}
    others: list[str] = []

    def unlisted(error: OSError) -> None:
        name = _text(Path(error.filename).relative_to(root))
        readers[name] = partial(
            _refuse, f"{name}: the folder cannot be listed ({error.strerror}); mend its permissions"
        )

    for place, folders, files in os.walk(root, onerror=unlisted):
        folders[:] = [one for one in folders if not is_passed_over(one)]
        others += [_text((Path(place) / one).relative_to(root)) for one in left_out(files)]
        here = Path(place)
        # what a link inside the root leads to is met where it lies
        outside = [one for one in folders if not _real(here / one).is_relative_to(root)]
        for path in [here / one for one in [*outside, *filter(is_image, files)]]:
            name = _text(path.relative_to(root))
            reader: Read = partial(read_file, path, name=name, below=root)
            if name != path.relative_to(root).as_posix():
                reader = partial(_refuse, f"{name}: a name is UTF-8: this one is none; rename the file")
            readers.setdefault(name, reader)
    return readers, left_out(others)


def _refuse(problem: str) -> NoReturn:
    raise DataError(problem)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _text(path: Path) -> str:
    """A relative path as UTF-8 text; other bytes are escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
