"""Numbers, names and lists as people read them."""

import difflib
from collections.abc import Iterable, Sequence

VAGUE = ("kind", "name", "value")
"""Last parts of a parameter's path that say nothing without the one before."""


def share(value: float) -> str:
    """A score of 0..1 with three digits."""
    return f"{value:.3f}"


def score(value: float) -> str:
    """The value of an objective, four significant digits: "0.7880"."""
    return f"{value:#.4g}"


def number(value: float) -> str:
    """Any number with four significant digits at most: "0.001", "1e-05", "12.5"."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as "0.4 s", "42 s", "12 min 5 s" or "3 h 12 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(seconds: float) -> str:
    """Seconds since a beginning as "0:16" or "75:03"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def scaled(value: float, unit: str = "") -> str:
    """Three significant digits and a prefix: "31.0 M", "12.3 kJ"."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:#.3g} {prefix}{unit}".replace(". ", " ")
    return f"{value:.3g} {unit}".strip()


def size(amount: float) -> str:
    """Bytes as "64 MiB" or "3.0 GiB"."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def data(name: str, digest: str) -> str:
    """A data set as tables and pages call it: "bridge (1a2b3c4d)", by its name and what it holds."""
    return f"{name} ({digest[:8]})"


def count(number: float, noun: str) -> str:
    """ "1 image", "46 images", "0.5 GPUs"."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{amount} {noun}" if number == 1 else f"{amount} {noun}s"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def leaders(names: Sequence[str], *, of: str) -> str:
    """Who is best, as the subject of a sentence: "the best of 4 models (a) has", or, of those that tie,
    "2 of 4 models (a and b) share the best"."""
    named = listed(list(dict.fromkeys(names)))
    return (
        f"the best of {of} ({named}) has"
        if len(names) == 1
        else f"{len(names)} of {of} ({named}) share the best"
    )


def shortened(names: Iterable[str]) -> dict[str, str]:
    """The last parts of each dotted path, as many as tell it from the others; never a bare "kind"."""
    every = list(dict.fromkeys(names))
    short = {}
    for name in every:
        parts = name.split(".")
        least = 2 if parts[-1] in VAGUE else 1
        tails = (".".join(parts[-length:]) for length in range(least, len(parts) + 1))
        alike = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in every) == 1)
        short[name] = next(alike, name)
    return short


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """`; did you mean ...?` where one of `known` looks like `name`, or nothing; `likeness` 1 is equal."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"; did you mean `{matches[0]}`?" if matches else ""
