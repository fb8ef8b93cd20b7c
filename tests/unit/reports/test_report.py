"""The report says what a search found, whatever became of its trials."""

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from math import inf

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from fissura.records.store import read_runs
from fissura.records.trial_attributes import REASON, SKIPPED
from fissura.reports.export import held_out
from fissura.reports.figures import Undrawable
from fissura.reports.leaderboard import leaderboard
from fissura.reports.plots import completed, importances, plots
from fissura.reports.report import StudyFacts, write_report
from fissura.reports.sensitivity import LEAST

LR = FloatDistribution(1e-4, 1e-1, log=True)
WIDTH = FloatDistribution(0, 1)
KIND = CategoricalDistribution(["unet", "linknet"])


class Reader(HTMLParser):
    """Fails on unbalanced elements; keeps the tags, the addresses, the text and the scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.addresses, self.text, self.scripts = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "action", "srcset")]
        if tag not in ("img", "meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(self.text)

    @property
    def figures(self) -> list[dict]:
        return [json.loads(code) for code in self.scripts if code.startswith('{"data"')]


def trial(
    value: float | None, *, state: TrialState = TrialState.COMPLETE, reason: str | None = None, **params
):
    """A trial that ended; parameters are `lr`, `width` and `kind`."""
    known = {"lr": LR, "width": WIDTH, "kind": KIND}
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: known[name] for name in params},
        user_attrs={} if reason is None else {REASON: reason},
    )


def study_of(*trials, direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(study_name="s", direction=direction)
    study.add_trials(trials)
    return study


FACTS = StudyFacts(
    objectives=("validation F1",), data="61 training images.", command="fissura search x --trials 9"
)


def report(study: optuna.Study, tmp_path, *, extra: StudyFacts = FACTS, title="A search") -> Reader:
    path = write_report(study, tmp_path / "report.html", title=title, extra=extra)
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.open == []
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    return reader


@pytest.fixture
def searched(rng) -> optuna.Study:
    """Forty trials: the value falls off around lr 0.01, and hardly depends on the rest."""
    trials = [trial(0.60, lr=1e-3, width=0.5, kind="unet")]
    for number in range(39):
        lr, width = float(10 ** rng.uniform(-4, -1)), float(rng.uniform())
        value = 0.8 - 0.1 * abs(LR.high / lr / 10 - 1) ** 0.5 + 0.01 * width
        params = {"lr": lr, "kind": "unet" if number % 3 else "linknet"} | (
            {"width": width} if number % 3 else {}
        )
        trials.append(trial(value, **params))
    trials += [trial(None, state=TrialState.FAIL, reason="out of memory", lr=0.1, kind="unet")] * 2
    trials.append(trial(None, state=TrialState.FAIL, lr=0.1, kind="unet"))
    trials.append(trial(0.3, state=TrialState.PRUNED, lr=0.1, kind="unet"))
    return study_of(*trials)


def test_the_first_screen_says_what_was_found(searched, tmp_path):
    best = searched.best_value
    said = report(searched, tmp_path).said
    assert (
        f"The best trial reached validation F1 {best:#.4g}, against 0.6000 with the paper's own setting"
        in said
    )
    assert f"({best - 0.6:+.3g})" in said
    assert re.search(r"Trials completed\s+40\s+3 failed, 1 pruned", said)
    assert "Why 3 trials failed" in said
    assert "2 × out of memory" in said
    assert "1 × no reason was kept" in said
    assert "fissura search x --trials 9" in said
    assert "No trial of this search has been scored on held-out images yet." in said


def test_a_setting_that_was_skipped_is_no_trial_that_failed(searched, tmp_path):
    searched.add_trial(
        create_trial(state=TrialState.FAIL, user_attrs={SKIPPED: "known", REASON: "skipped: known"})
    )
    said = report(searched, tmp_path).said
    assert re.search(r"Trials completed\s+40\s+3 failed, 1 pruned", said)
    assert "Why 3 trials failed" in said
    assert "× skipped" not in said


def test_every_plot_of_a_whole_search_is_drawn(searched, tmp_path):
    reader = report(searched, tmp_path)
    # No trial reported while it trained; all else is there, with Plotly's code once.
    sentence = "Not drawn: Learning curves (no trial reported values while it trained)."
    assert reader.said.count("Not drawn") == reader.said.count(sentence) == 1
    assert len(reader.figures) == 6
    assert sum("Plotly.react" in code and "data-plot" in code for code in reader.scripts) == 1
    assert sum(len(code) > 1_000_000 for code in reader.scripts) == 1


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_of_reaching_good_values_in_either_direction(rng, direction):
    """`lr` alone decides who is best; `width` alone decides who is worst."""
    sign = 1 if direction == "maximize" else -1
    trials = []
    for _ in range(200):
        lr, width = float(10 ** rng.uniform(-4, -1)), float(rng.uniform())
        trials.append(trial(sign * (10.0 * (lr > 0.02) - 10.0 * (width > 0.9)), lr=lr, width=width))
    several = optuna.create_study(directions=["minimize", direction])
    for one in trials:
        several.add_trial(
            create_trial(values=[0.0, one.value], params=one.params, distributions=one.distributions)
        )
    alone = importances(study_of(*trials, direction=direction))
    assert alone["lr"] > alone["width"]
    assert importances(several, objective=1)["lr"] > 0.5


def test_the_headline_names_the_images_and_the_protocol_of_each_number(
    searched, tmp_path, write_scored_run, load_picture
):
    where = "on the validation images of bridge, under the protocol tolerant:2"
    rows = leaderboard(read_runs([write_scored_run(tmp_path / "a")]).records)
    extra = replace(FACTS, measured=[where], runs=held_out(rows, load=load_picture))
    said = report(searched, tmp_path, extra=extra).said
    best, f1 = searched.best_value, rows.tables[0].standings[0].scores["f1"].value
    assert f"validation F1 {best:#.4g} {where}, against 0.6000 with the paper's own setting" in said
    assert f"Best validation F1 {best:#.4g} trial {searched.best_trial.number} {where}" in said
    cfd = r"cfd \(dddddddd\)"
    assert re.search(rf"6 test images of {cfd}, under the protocol pixel, .* F1 {f1:.3f} ", said)
    assert re.search(rf"{cfd}, test: pixel F1 {f1:.3f} ", said)


def test_pictures_come_before_the_plots(searched, tmp_path, write_scored_run, load_picture):
    rows = leaderboard(read_runs([write_scored_run(tmp_path / "a")]).records)
    report(searched, tmp_path, extra=replace(FACTS, runs=held_out(rows, load=load_picture)))
    page = (tmp_path / "report.html").read_text()
    assert page.index('id="held-out-images"') < page.index("<img") < page.index('id="best-trials"')
    assert page.rindex("<img ") < page.index('class="plot"')


def test_the_plots_speak_the_study_s_own_words(rng, tmp_path):
    """No word of Optuna's at an axis or in a legend, and no path longer than what tells it apart."""
    names = {"phases.train.optimizer.lr": LR, "phases.warm.optimizer.lr": LR, "model.width": WIDTH}
    study = study_of(
        *(
            create_trial(
                value=value,
                params={name: float(rng.uniform(1e-3, 1e-1)) for name in names},
                distributions=names,
                intermediate_values={1: value / 2, 2: value},
            )
            for value in rng.uniform(0.2, 0.9, 20).tolist()
        )
    )
    figures = report(study, tmp_path).figures
    assert len(figures) == 7
    words = set(re.findall(r'"(?:text|label|name)": ?"([^"]*)"', json.dumps([f["layout"] for f in figures])))
    words |= set(re.findall(r'"(?:label|name)": ?"([^"]*)"', json.dumps([f["data"] for f in figures])))
    assert not words & {
        *("Intermediate Value", "Objective Value", "Best Value", "Step", "Trial", "Hyperparameter"),
        "Hyperparameter Importance",
    }
    assert {"epoch", "trial", "share", "best so far", "validation F1"} <= words
    assert {"width", "train.optimizer.lr", "warm.optimizer.lr"} <= words
    assert not any("phases." in word or "model." in word for word in words)


def test_learning_curves_are_drawn_where_trials_reported(tmp_path):
    one = create_trial(
        value=0.5, params={"lr": 0.1}, distributions={"lr": LR}, intermediate_values={0: 0.1, 1: 0.5}
    )
    reader = report(study_of(one), tmp_path)
    assert "Learning curves" not in not_drawn(reader)


PLOTS = (
    "History",
    "Which parameters matter",
    "Each parameter alone",
    "Two parameters together",
    "All parameters together",
    "Learning curves",
)


def not_drawn(reader: Reader) -> str:
    """The sentences about plots that are left out."""
    return " ".join(sentence for sentence in reader.text if sentence.startswith("Not drawn"))


FAILED = trial(None, state=TrialState.FAIL, reason="the images are gone", lr=0.1)
UNLIKE = [trial(0.1, width=0.5), trial(0.2, lr=0.1), trial(0.3, lr=0.02), trial(0.4, width=0.6)]
ONE_VARIES = "only one parameter took more than one value"
NONE_VARIES = "no parameter took more than one value"
NO_PAPER = "The paper's own setting has no value"


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ([], "No trial has completed, so the search has found nothing yet."),
        ([FAILED] * 3, "3 × the images are gone"),
        ([trial(None, state=TrialState.RUNNING, lr=0.1)], "1 still running"),
        ([trial(0.5, lr=0.1)], "the paper's own setting; no other trial is better"),
        ([trial(0.5, lr=0.1), trial(0.6, lr=0.01)], ONE_VARIES),
        ([trial(0.5, lr=0.1)] * 3, NONE_VARIES),
        ([trial(0.5), trial(0.6)], NONE_VARIES),
        ([trial(0.5, lr=0.1, width=x / 9) for x in range(9)], ONE_VARIES),
        (
            [trial(0.5, lr=0.1 / (x + 1), width=x / 9) for x in range(9)],
            "completed trials have the same value",
        ),
        (UNLIKE, "no two parameters took more than one value in the same trials"),
        ([trial(inf, lr=0.1), trial(0.6, lr=0.01), trial(-inf, lr=0.02)], NO_PAPER),
        ([FAILED, trial(0.6, lr=0.01)], NO_PAPER),
    ],
)
def test_small_and_odd_studies_are_reported_all_the_same(trials, says, tmp_path):
    reader = report(study_of(*trials), tmp_path)
    assert says in reader.said
    # Every plot is there, or named in the one sentence of its section with its reason; no slot stands empty.
    whole = [*PLOTS, "One parameter at a time"] if len(completed(study_of(*trials))) >= LEAST else PLOTS
    left_out = [title for title in whole if title in not_drawn(reader)]
    assert len(reader.figures) + len(left_out) == len(whole)
    assert reader.said.count("Not drawn") == (1 if left_out else 0)
    assert reader.tags.count("section") == len(reader.figures)
    assert "says Optuna" not in reader.said


def test_several_objectives_have_a_pareto_front(rng, tmp_path):
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(30):
        lr, width = float(10 ** rng.uniform(-4, -1)), float(rng.uniform())
        study.add_trial(
            create_trial(
                values=[lr + width, width**2],
                params={"lr": lr, "width": width},
                distributions={"lr": LR, "width": WIDTH},
            )
        )
    facts = StudyFacts(objectives=("F1", "seconds"), data="d", command="c", paper_trial=None)
    reader = report(study, tmp_path, extra=facts)
    assert f"{len(study.best_trials)} trials on the Pareto front of F1, seconds" in reader.said
    assert "Which parameters matter of seconds" in reader.said
    assert len(reader.figures) == 1 + 2 * 6


def test_four_objectives_have_no_picture_of_their_front():
    study = optuna.create_study(directions=["maximize"] * 4)
    study.add_trial(create_trial(values=[1, 2, 3, 4], params={"lr": 0.1}, distributions={"lr": LR}))
    front = plots(study, objectives="abcd")[0]
    with pytest.raises(Undrawable, match="two or three objectives, and there are 4"):
        front.draw()


def test_held_out_scores_and_pictures_are_part_of_it(searched, tmp_path, write_scored_run, load_picture):
    run = write_scored_run(tmp_path / "a")
    records = read_runs([run]).records
    extra = replace(
        FACTS,
        manifest=records[0].manifest,
        details={"Sampler": "TPE, seed 1"},
        runs=held_out(leaderboard(records), load=load_picture),
    )
    reader = report(searched, tmp_path, extra=extra)
    assert "On the 6 test images of cfd (dddddddd), under the protocol pixel" in reader.said
    assert reader.tags.count("img") == 3 * 4
    for fact in (records[0].manifest.code_version, "TPE, seed 1", "d" * 16):
        assert fact in reader.said


def test_no_text_of_a_study_can_become_code(tmp_path):
    evil = "</script><script>alert(1)</script>"
    distribution = {evil: CategoricalDistribution([evil, "b"]), "lr": LR}
    trials = [
        create_trial(
            value=v, params={evil: evil if v > 0.4 else "b", "lr": 0.1 / (1 + v)}, distributions=distribution
        )
        for v in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    failed = trial(None, state=TrialState.FAIL, reason=evil, lr=0.1)
    reader = report(study_of(*trials, failed), tmp_path, title=evil)
    assert len(reader.figures) == 5
    others = [code for code in reader.scripts if not code.startswith('{"data"')]
    assert not any("alert(1)" in code for code in others)
    assert evil in reader.said


def test_warnings_and_logs_of_optuna_stay_inside(searched, tmp_path, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report(searched, tmp_path)
    assert caught == []
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "")


def test_completed_are_the_trials_with_finite_values():
    study = study_of(trial(0.5, lr=0.1), trial(inf, lr=0.1), trial(None, state=TrialState.FAIL, lr=0.1))
    assert [one.number for one in completed(study)] == [0]
