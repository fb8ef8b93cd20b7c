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


def part(name: str, *content: object) -> Markup:
    """The macro `name` of `parts.html` with its arguments; text that is no `Markup` is escaped."""
    made: Markup = getattr(_templates().get_template("parts.html").module, name)(*content)
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
    return part("table", headers, rows, numeric, hints or {})


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
