"""The command: `python -m benchmarks.campaign --help`."""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import campaign
from benchmarks.campaign.results import report
from benchmarks.campaign.rows import CLAIMS, ROWS, Row
from benchmarks.campaign.training import Failed, Outcome, Terms, plan, score, train

from fissura.core.errors import UserError
from fissura.core.files import replacing
from fissura.data.cache import default_cache
from fissura.data.content import content_digest
from fissura.data.datasets import parse_datasets
from fissura.data.labelled import labelled_kinds, parse_labelled


def main(words: Sequence[str] | None = None) -> int:
    """Trains, scores and reports; gives the exit code."""
    options = _parser().parse_args(words)
    terms = Terms(options.minutes, options.profile, options.out.resolve(), default_cache())
    labelled = [data for data in options.data if data.partition(":")[0] in labelled_kinds()]
    masked = [data for data in options.data if data not in labelled]
    # looks at them all before anything is trained
    if masked:
        content_digest(parse_datasets(masked), directory=terms.cache)
    if labelled:
        parse_labelled(labelled)
    terms.out.mkdir(parents=True, exist_ok=True)
    if options.plan:
        for row in _chosen(options.rows):
            for data in labelled if row.classifies else masked:
                _say(f"{row.name} on {data}: {plan(row, data=data, terms=terms)}")
        return 0
    outcomes: list[Outcome] = []
    failures: list[Failed] = []
    for seed in range(options.seeds):
        for row in _chosen(options.rows):
            for data in labelled if row.classifies else masked:
                result = train(row, data=data, seed=seed, terms=terms, say=_say)
                if isinstance(result, Failed):
                    failures.append(result)
                else:
                    outcomes.append(result)
                    score(result, others=[other for other in masked if other != data], terms=terms)
                text = report(outcomes, failures, claims=CLAIMS, minutes=options.minutes)
                with replacing(terms.out / "campaign.md") as scratch:
                    scratch.write_text(text, encoding="utf-8")
    _say(f"report: {terms.out / 'campaign.md'}")
    return 0


def _chosen(patterns: Sequence[str]) -> list[Row]:
    return [row for row in ROWS if any(fnmatchcase(row.name, pattern) for pattern in patterns)]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.campaign",
        description=campaign.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", action="append", required=True, metavar="KIND:ROOT", help="a data set; again for more"
    )
    parser.add_argument("--minutes", type=float, default=6.0, help="of training, each row (default: 6)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row (default: 1)")
    parser.add_argument(
        "--rows", nargs="+", default=["*"], metavar="PATTERN", help="their names (default: all)"
    )
    parser.add_argument(
        "--profile", default="cpu", help="of the rows' search spaces: cpu or gpu (default: cpu)"
    )
    parser.add_argument(
        "--plan", action="store_true", help="measure what fits the minutes, and train nothing yet"
    )
    parser.add_argument("--out", type=Path, default=Path("campaign"), help="the folder (default: campaign)")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit("\n".join(f"error: {problem}" for problem in error.problems))
