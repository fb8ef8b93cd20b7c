"""The tables of a campaign: who leads, how each does on the other data sets, and which claims hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.campaign.rows import Claim
from benchmarks.campaign.training import Failed, Outcome

import fissura

PIXEL = "pixel"
Line = Mapping[str, Any]


def report(
    trained: Sequence[Outcome], failed: Sequence[Failed], *, claims: Sequence[Claim], minutes: float
) -> str:
    """The whole report, as Markdown."""
    lines = [f"# Campaign: {minutes:g} minutes a training", ""]
    for data in dict.fromkeys(outcome.data for outcome in trained):
        lines += _leaderboard(data, [outcome for outcome in trained if outcome.data == data])
    lines += _matrix(trained)
    lines += _claims(trained, claims)
    if failed:
        lines += ["## Not trained", ""]
        lines += [
            f"- {failure.row} on {failure.data}, seed {failure.seed}: {failure.reason}" for failure in failed
        ]
    return "\n".join(lines) + "\n"


def _leaderboard(data: str, trained: Sequence[Outcome]) -> Iterator[str]:
    """A table a protocol or condition, of the test images of the data set that the rows were trained on."""
    rows = _rows_of(trained)
    for judged in trained[0].judged_under:
        yield from (f"## {_short(data)}, {judged}", "")
        yield from _table(
            ("rank", "row", "F1 (95 %)", "precision", "recall", "group", "weights", "seeds", "training"),
            [
                (
                    f"{line['rank']}", rows[line["run_ids"][0]].row, _f1(line), f"{line['precision']:.3f}",
                    f"{line['recall']:.3f}", line["group"], f"{line['parameters']:,}",
                    f"{len(line['seeds'])}", f"{line['seconds']:.0f} s",
                )
                for line in _scored(trained, judged, on=trained[0].digest)
            ],
        )  # fmt: skip


def _matrix(trained: Sequence[Outcome]) -> Iterator[str]:
    """F1 of each segmenter on each data set, by the data set that it was trained on."""
    trained = [outcome for outcome in trained if not outcome.classifies]
    names = {outcome.digest: _short(outcome.data) for outcome in trained}
    if len(names) < 2:
        return
    rows, cells = _rows_of(trained), dict[tuple[str, str], dict[str, str]]()
    for digest in names:
        for line in _scored(trained, PIXEL, on=digest):
            outcome = rows[line["run_ids"][0]]
            cells.setdefault((outcome.row, _short(outcome.data)), {})[digest] = f"{line['f1']:.3f}"
    yield from (f"## On each other's data: {PIXEL} F1", "")
    yield from _table(
        ("row", "trained on", *names.values()),
        [(*key, *(scores.get(digest, "") for digest in names)) for key, scores in sorted(cells.items())],
    )


def _claims(trained: Sequence[Outcome], claims: Sequence[Claim]) -> Iterator[str]:
    """Each claim on each data set: both scores, and whether the paired bootstrap tells them apart at 5 %."""
    found = []
    for data in dict.fromkeys(outcome.data for outcome in trained):
        for claim in claims:
            better, worse = (
                [outcome for outcome in trained if (outcome.row, outcome.data) == (row, data)]
                for row in (claim.better, claim.worse)
            )
            if better and worse:
                verdict = _verdict(better, worse, under=claim.under)
                found.append(
                    (claim.paper, claim.better, claim.worse, f"{_short(data)}, {claim.under}", *verdict)
                )
    yield from ("## The papers' claims, at this budget", "")
    yield from _table(("claim", "better", "than", "data", "F1", "F1 of the other", "here"), found)


def _verdict(better: Sequence[Outcome], worse: Sequence[Outcome], *, under: str) -> tuple[str, str, str]:
    lines = _scored([*better, *worse], under, on=better[0].digest)
    own = {outcome.run.name for outcome in better}
    first, second = sorted(lines, key=lambda line: line["run_ids"][0] not in own)
    if first["group"] == second["group"]:
        return _f1(first), _f1(second), "not told apart"
    return _f1(first), _f1(second), "holds" if first["f1"] > second["f1"] else "refuted"


def _scored(trained: Sequence[Outcome], judged: str, *, on: str) -> list[Line]:
    """The leaderboard's rows under a protocol or condition on the data set of a digest, best first."""
    lines = fissura.leaderboard([outcome.run for outcome in trained]).plain()
    return [
        {**line, **{name: _listed(line[name]) for name in ("run_ids", "seeds")}}
        for line in lines
        if line["data_digest"] == on and judged in (line.get("protocol"), line.get("condition"))
    ]


def _listed(values: Any) -> list[Any]:
    """A list, which the tables of classifiers keep as JSON."""
    return list(json.loads(values) if isinstance(values, str) else values)


def _rows_of(trained: Sequence[Outcome]) -> dict[str, Outcome]:
    return {outcome.run.name: outcome for outcome in trained}


def _short(data: str) -> str:
    """The kind and the folder's own name of `KIND:ROOT`."""
    kind, _, root = data.partition(":")
    return f"{kind} {Path(root.partition('?')[0]).name}"


def _f1(line: Line) -> str:
    return f"{line['f1']:.3f} ({line['f1_low']:.3f} to {line['f1_high']:.3f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"
    yield ""
