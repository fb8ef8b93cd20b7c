"""Classifies files by name: images that are read, images that are not, and an operating system's own files.

Needs only the standard library: an exported bundle holds this file.
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import PurePosixPath

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".pef", ".srw", ".avif", ".jxl", ".jp2"}
)
_OF_SYSTEMS = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin",
        "system volume information",
    }
)  # fmt: skip
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def reads_heif() -> bool:
    """Whether HEIC photographs can be read: `pillow-heif` is installed."""
    try:
        import_module("pillow_heif")
    except ImportError:
        return False
    return True


def is_passed_over(name: str) -> bool:
    """Whether a relative path is hidden, or an operating system's own file."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {".", ".."}]
    return any(part.startswith(".") or part.lower() in _OF_SYSTEMS for part in parts)


def is_image(name: str, *, more: frozenset[str] = frozenset()) -> bool:
    """Whether a relative path has the suffix of an image that is read, or one of `more`."""
    suffix = PurePosixPath(name).suffix.lower()
    known = suffix in SUFFIXES or suffix in more or (suffix in HEIF_SUFFIXES and reads_heif())
    return known and not is_passed_over(name)


def is_photograph(name: str) -> bool:
    """Whether a relative path has the suffix of an image, also of one that is not read (HEIC, DNG)."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in SUFFIXES | HEIF_SUFFIXES | _RAW_SUFFIXES and not is_passed_over(name)


def left_out(names: Iterable[str], *, more: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The relative paths that are not read because of their suffix, photographs first."""

    def order(name: str) -> tuple[int, str]:
        suffix = PurePosixPath(name).suffix.lower()
        return (0 if suffix in HEIF_SUFFIXES else 1 if suffix in _RAW_SUFFIXES else 2), name

    return tuple(
        sorted(
            (name for name in names if not is_passed_over(name) and not is_image(name, more=more)), key=order
        )
    )


def left_out_line(names: tuple[str, ...], *, most: int = 10) -> str:
    """One line about files that are `left_out`, at most `most` of them by name."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    files = f"{len(names)} file{'s' * (len(names) != 1)}"
    heif = any(PurePosixPath(name).suffix.lower() in HEIF_SUFFIXES for name in names)
    remedy = "; HEIC is read where pillow-heif is installed, or as JPEG" if heif else ""
    whose = "its" if len(names) == 1 else "their"
    return f"{files} left out by {whose} suffix: {', '.join(names[:most])}{more}{remedy}"


def unread_kind(beginning: bytes) -> str:
    """The kind of a file that is not read, by its first bytes (12 or more), and the remedy; or ""."""
    if beginning[4:8] != b"ftyp":
        return ""
    if beginning[8:12] in _HEIF_BRANDS:
        return "is a HEIC photograph; save it as JPEG, or install pillow-heif where it is read"
    if beginning[8:12] in {b"avif", b"avis"}:
        return "is an AVIF image; save it as JPEG"
    return "is a film, or an image of a kind that is not read; save it as JPEG"
