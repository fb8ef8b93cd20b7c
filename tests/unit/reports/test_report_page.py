"""The pages of results in a browser, on a telephone and on a desk: what is seen without a scroll."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from fissura.records.store import read_runs
from fissura.reports.export import held_out, write_leaderboard
from fissura.reports.leaderboard import leaderboard
from fissura.reports.report import StudyFacts, write_report

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WIDTHS = (390, 1400)
PARAMETERS = [f"phases.train.augmentation.{name}.probability" for name in "abcdefghijklmnopq"]

# Each table that is seen: its place, the edges of the columns that are seen, and what its button says.
TABLES = """
return [...document.querySelectorAll('div.fold')].filter(fold => fold.checkVisibility()).map(fold => {
  const [place, more] = fold.children, box = place.getBoundingClientRect();
  const heads = [...fold.querySelectorAll('th')].filter(head => head.checkVisibility());
  const cells = [...fold.querySelectorAll('td, th')].filter(cell => cell.checkVisibility());
  return {
    left: box.left, right: box.right, titles: heads.map(head => head.textContent),
    rights: heads.map(head => head.getBoundingClientRect().right),
    furthest: Math.max(...cells.map(cell => cell.getBoundingClientRect().right)),
    scrolls: place.scrollWidth > place.clientWidth, more: more.checkVisibility() ? more.textContent : '',
  };
});
"""
PAINTED = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, write_scored_run: Callable[..., Path], load_picture: Any
) -> dict[str, Path]:
    """A report and a leaderboard of the widest kind: 17 parameters with long paths, curves, two protocols."""
    tmp_path = tmp_path_factory.mktemp("pages")
    runs = tmp_path / "runs"
    for name, lr in (("aaaaaaaaaaaa", 0.1), ("bbbbbbbbbbbb", 0.01), ("cccccccccccc", 0.001)):
        write_scored_run(
            runs / name,
            lr=lr,
            quality=0.9 + lr / 2,
            protocols=("flexible:2", "pixel"),
            recipe="attention_resunet",
        )
    board = leaderboard(read_runs([runs]).records)
    write_leaderboard(board, tmp_path, formats=("html",), load=load_picture)
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        study.add_trial(
            create_trial(
                value=0.5 + number / 30,
                params={path: (number * place) % 7 / 7 for place, path in enumerate(PARAMETERS, start=1)},
                distributions=dict.fromkeys(PARAMETERS, FloatDistribution(0, 1)),
                intermediate_values={1: 0.1, 2: 0.5 + number / 30},
            )
        )
    facts = StudyFacts(
        objectives=("val/f1",),
        data="d",
        command="c",
        measured=("on the validation images of bridge",),
        runs=held_out(board, load=load_picture),
    )
    report = tmp_path / "report.html"
    write_report(study, report, title="bridge: search report", extra=facts)
    return {"report": report, "leaderboard": tmp_path / "leaderboard.html"}


@pytest.fixture
def seen(browser: "Chrome", pages: dict[str, Path]) -> Iterator[Callable[[str, int], list[dict[str, Any]]]]:
    """Opens a page at a width; gives its tables."""

    def open_page(name: str, width: int) -> list[dict[str, Any]]:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(pages[name].as_uri())
        return list(browser.execute_script(TABLES))

    yield open_page
    assert [entry["message"] for entry in browser.get_log("browser")] == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "leaderboard"])
def test_rank_name_and_f1_are_seen_first_and_no_column_is_cut(
    seen: Callable[[str, int], list[dict[str, Any]]], browser: "Chrome", name: str, width: int
) -> None:
    tables = seen(name, width)
    ranked = [table for table in tables if table["titles"][0] == "Rank"]
    assert len(ranked) == 2
    for table in ranked:
        assert table["titles"][:3] == ["Rank", "Recipe", "F1"]
    for table in tables:
        assert table["rights"][2] <= width, "the third column ends off the screen"
        assert not table["scrolls"], f"columns are cut at {width} pixels: {table}"
        assert table["furthest"] <= table["right"] + 1 <= width
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_that_is_opened_folds_too(
    seen: Callable[[str, int], list[dict[str, Any]]], browser: "Chrome", width: int
) -> None:
    before = seen("report", width)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.execute_async_script(PAINTED)
    tables = browser.execute_script(TABLES)
    assert len(tables) == len(before) + 1
    for table in tables:
        assert not table["scrolls"], f"columns are cut at {width} pixels: {table}"
        assert table["rights"][2] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_folded_away_is_named_and_comes_back_at_a_click(
    seen: Callable[[str, int], list[dict[str, Any]]], browser: "Chrome", width: int
) -> None:
    before = seen("report", width)
    assert any(table["more"] for table in before)
    browser.execute_script("document.querySelectorAll('button.more').forEach(more => more.click())")
    after = browser.execute_script(TABLES)
    for folded, whole in zip(before, after, strict=True):
        hidden = whole["titles"][len(folded["titles"]) :]
        if folded["more"]:
            assert folded["more"] == f"Show {len(hidden)} more: {', '.join(hidden)}"
            assert whole["scrolls"]
            assert whole["more"] == "Show fewer columns"
        else:
            assert not hidden
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
    browser.execute_script("document.querySelectorAll('button.more').forEach(more => more.click())")
    assert browser.execute_script(TABLES) == before


def test_a_desk_shows_what_a_table_is_about_without_a_click(
    seen: Callable[[str, int], list[dict[str, Any]]],
) -> None:
    ranked = [table for table in seen("report", 1400) if table["titles"][0] == "Rank"]
    for table in ranked:
        assert {"Group", "Precision", "Recall", "Macro F1", "Threshold"} <= set(table["titles"])
    assert {"ODS", "OIS", "AP"} <= {title for table in ranked for title in table["titles"]}


def test_a_window_that_grows_unfolds_its_tables(
    seen: Callable[[str, int], list[dict[str, Any]]], browser: "Chrome"
) -> None:
    narrow = seen("leaderboard", 390)
    metrics = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_async_script(PAINTED)
    wide = browser.execute_script(TABLES)
    assert all(len(b["titles"]) > len(a["titles"]) for a, b in zip(narrow, wide, strict=True))


def test_pictures_stand_above_the_plots(
    seen: Callable[[str, int], list[dict[str, Any]]], browser: "Chrome"
) -> None:
    seen("report", 1400)
    bottoms = "[...document.images].map(image => image.getBoundingClientRect().bottom)"
    tops = "[...document.querySelectorAll('.plot')].map(plot => plot.getBoundingClientRect().top)"
    assert browser.execute_script(f"return Math.max(...{bottoms}) < Math.min(...{tops})")
