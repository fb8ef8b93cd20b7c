"""Building one self-contained HTML page: escaped by construction, and no request ever leaves it."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

# Sorts by the clicked column: by `data-value` where a cell has one, as numbers where both are; empty last.
_SORT = """
for (const button of document.querySelectorAll('table.sortable th button')) button.onclick = () => {
  const head = button.parentElement, table = head.closest('table'), body = table.tBodies[0];
  const column = [...head.parentElement.children].indexOf(head);
  const ascending = head.getAttribute('aria-sort') !== 'ascending';
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    const gap = Number(a) - Number(b);
    return (Number.isNaN(gap) ? a.localeCompare(b) : gap) * (ascending ? 1 : -1);
  };
  [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach(row => body.append(row));
  table.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
};
"""
# Folds away the last columns of a table that is wider than its place, never the first three; a button below
# names them and unfolds them, and the table then scrolls. Without scripts it scrolls from the first.
_FOLD = """
const fold = holder => {
  const [place, more] = holder.children, table = place.firstElementChild;
  const heads = [...table.tHead.rows[0].cells], open = more.ariaExpanded === 'true';
  delete table.dataset.first;
  const start = heads[0].getBoundingClientRect().left, room = place.clientWidth + 1;
  const fits = heads.filter(head => head.getBoundingClientRect().right - start <= room).length;
  const shown = Math.max(fits, 3), hidden = heads.slice(shown).map(head => head.textContent);
  if (!open && hidden.length) table.dataset.first = shown;
  more.hidden = !hidden.length;
  more.textContent = open ? 'Show fewer columns' : `Show ${hidden.length} more: ${hidden.join(', ')}`;
};
const rules = Array.from({length: 97}, (_, i) =>
  `table[data-first="${i + 3}"] tr > :nth-child(n + ${i + 4}) { display: none; }`);
document.head.append(Object.assign(document.createElement('style'), {textContent: rules.join('')}));
const watch = new ResizeObserver(entries => entries.forEach(entry => fold(entry.target.parentElement)));
for (const holder of document.querySelectorAll('div.fold')) {
  const [place, more] = holder.children;
  more.onclick = () => { more.ariaExpanded = String(more.ariaExpanded !== 'true'); fold(holder); };
  watch.observe(place);
}
"""

# Plotly's parallel coordinates compile their own functions, hence 'unsafe-eval'; nothing may be fetched.
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'; worker-src blob:; base-uri 'none'; form-action 'none'"
)
_VOID = frozenset({"img", "meta"})

Child = str | int | float | None


class Html(str):
    """Text that is markup already. Any other text is escaped when it is put into an element."""

    __slots__ = ()


def join(*children: Child) -> Html:
    """Children one after the other; None is nothing."""
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(str(child))
            for child in children
            if child is not None
        )
    )


def element(tag: str, *children: Child, attributes: Mapping[str, str] | None = None) -> Html:
    """An element; "td.number" is a `td` of class `number`. Children that are not Html are escaped."""
    name, *classes = tag.split(".")
    pairs = {**({"class": " ".join(classes)} if classes else {}), **(attributes or {})}
    opening = name + "".join(f' {key}="{html.escape(value)}"' for key, value in pairs.items())
    return Html(f"<{opening}>" if name in _VOID else f"<{opening}>{join(*children)}</{name}>")


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `value` is what it sorts by ("" last), by default its text."""

    content: Child
    value: float | str | None = None


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    numeric: Sequence[str] = (),
    hints: Mapping[str, str] | None = None,
) -> Html:
    """A sortable table; the columns named in `numeric` are set to the right, and `hints` say more of a
    header where the pointer rests on it.

    The last columns fold where it is wider than the page, the first three never: what a row is called and
    what it is judged by stand there.
    """
    heads = [
        element(
            f"th{_align(name, numeric)}",
            element("button", _breakable(name), attributes={"type": "button"}),
            attributes={"title": hints[name]} if hints and name in hints else None,
        )
        for name in headers
    ]
    lines = [
        element("tr", *(_cell(cell, _align(name, numeric)) for name, cell in zip(headers, row, strict=True)))
        for row in rows
    ]
    body = element("table.sortable", element("thead", element("tr", *heads)), element("tbody", *lines))
    more = element("button.more", attributes={"type": "button", "aria-expanded": "false", "hidden": ""})
    return element("div.fold", element("div.scroll", body), more)


def _breakable(dotted: str) -> Html:
    # A long dotted name may go on in the next line after a dot or an underscore.
    return Html(html.escape(dotted).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _align(name: str, numeric: Sequence[str]) -> str:
    return ".number" if name in numeric else ""


def _cell(cell: Cell, align: str) -> Html:
    attributes = None if cell.value is None else {"data-value": str(cell.value)}
    return element(f"td{align}", cell.content, attributes=attributes)


def facts(pairs: Mapping[str, Child]) -> Html:
    """A list of terms and what they are."""
    return element(
        "dl.facts", *(join(element("dt", key), element("dd", value)) for key, value in pairs.items())
    )


def tile(label: str, figure: str, detail: str) -> Html:
    """One number of the first screen."""
    parts = {"label": label, "figure": figure, "detail": detail}
    return element("div.tile", *(element(f"div.{kind}", part) for kind, part in parts.items()))


def script(code: str) -> Html:
    """A script element. The code is not escaped: it is the project's own or a library's, never a user's.

    Raises:
        ValueError: if the code holds the end of a script element.
    """
    if "</script" in code.lower():
        raise ValueError("the code would end its own script element")
    return Html(f"<script>{code}</script>")


def page(title: str, *body: Child) -> str:
    """A whole document in the project's style, light or dark as the reader's system is."""
    style = (files("fissura.reports") / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("title", title),
        Html(f"<style>{style}</style>"),
    )
    main = element("main", *body)
    document = element("html", head, element("body", main, script(_SORT + _FOLD)), attributes={"lang": "en"})
    return f"<!doctype html>\n{document}\n"
