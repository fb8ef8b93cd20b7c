"""Self-contained HTML pages from templates: all text is escaped, and no request ever leaves a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Cell:
    """A cell of a table, in grey where it is `muted`; `value` is what it sorts by ("" last), by default its
    text; `detail` stands behind it in small print, and `apart` below, a line each."""

    content: str
    value: float | str | None = None
    detail: str = ""
    apart: Sequence[str] = ()
    muted: bool = False


def part(name: str, content: Mapping[str, object]) -> Markup:
    """The macro `name` of `parts.html` with its arguments; text that is no `Markup` is escaped."""
    made: Markup = getattr(_templates().get_template("parts.html").module, name)(**content)
    return made


def document(name: str, content: Mapping[str, object]) -> str:
    """A whole document in the project's style, light or dark as the reader's system is."""
    return _templates().get_template(name).render(content)


def page(title: str, *body: Markup) -> str:
    """A document of these parts."""
    return document("page.html", {"title": title, "body": body})


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    numeric: Sequence[str] = (),
    hints: Mapping[str, str] | None = None,
) -> Markup:
    """A sortable table; the columns named in `numeric` are set to the right, and `hints` say more of a
    header where the pointer rests on it.

    The last columns fold where it is wider than the page, the first three never: what a row is called and
    what it is judged by stand there.
    """
    return part("table", {"headers": headers, "rows": rows, "numeric": numeric, "hints": hints or {}})


def tile(label: str, figure: str, detail: str) -> Markup:
    """One number of the first screen."""
    return part("tile", {"label": label, "figure": figure, "detail": detail})


def header(title: str, lead: str, *tiles: Markup) -> Markup:
    """The first screen of a table."""
    return part("header", {"title": title, "lead": lead, "tiles": tiles})


def section(heading: str, *content: Markup) -> Markup:
    """What stands under a heading of the third level."""
    return part("section", {"heading": heading, "content": Markup().join(content)})


def muted(text: str) -> Markup:
    """A remark in grey."""
    return part("muted", {"text": text})


def absent(text: str) -> Markup:
    """Why something is not there."""
    return part("absent", {"text": text})


def facts(pairs: Mapping[str, str]) -> Markup:
    """A list of terms and what they are."""
    return part("facts", {"pairs": pairs})


def pre(text: str) -> Markup:
    """Text with its spaces and line ends."""
    return part("pre", {"text": text})


def folded(summary: str, content: Markup) -> Markup:
    """What is shown when its summary is asked."""
    return part("folded", {"summary": summary, "content": content})


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("fissura.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["breakable"] = _breakable
    return templates


def _breakable(dotted: str) -> Markup:
    # A long dotted name may go on in the next line after a dot or an underscore.
    return escape(dotted).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>"))
