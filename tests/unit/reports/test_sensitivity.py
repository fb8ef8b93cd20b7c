"""The sensitivity figure shows what each parameter does on its own, and in words by how much."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from fissura.records.trial_attributes import SWEPT
from fissura.reports.figures import Plot, Undrawable
from fissura.reports.report import StudyFacts, write_report
from fissura.reports.sensitivity import LEAST, sensitivity

LAM, K, KIND = "phases.ambiguity.loss.lam", "phases.clustering.loss.k", "model.kind"
KNOWN = {
    LAM: FloatDistribution(0.1, 0.5),
    K: IntDistribution(5, 80, log=True),
    KIND: CategoricalDistribution(["unet", "deeplab_v3", None]),
}
PAPER = {LAM: 0.3, K: 20, KIND: "unet"}
SWEEP = [(LAM, 0.5, 0.58), (LAM, 0.1, 0.59), (K, 5, 0.594), (K, 80, 0.597), (KIND, None, 0.6)]


def study_of(*values: tuple[dict[str, Any], dict[str, Any], list[float]], high: bool = True) -> optuna.Study:
    """Completed trials: (parameters, user attributes, values)."""
    directions = ["maximize" if high else "minimize", "minimize"][: len(values[0][2])]
    study = optuna.create_study(directions=directions)
    for parameters, attributes, objectives in values:
        known = {name: KNOWN[name] for name in parameters}
        study.add_trial(
            create_trial(params=parameters, distributions=known, values=objectives, user_attrs=attributes)
        )
    return study


def swept(*, high: bool = True) -> list[tuple[dict[str, Any], dict[str, Any], list[float]]]:
    """The paper's trial with 0.6, and a sweep in no order of its values; or the same of a loss."""
    sign = 1 if high else -1
    sweep = [({**PAPER, name: value}, {SWEPT: name}, [sign * score]) for name, value, score in SWEEP]
    return [(PAPER, {}, [sign * 0.6]), *sweep]


def the_plot(study: optuna.Study) -> Plot:
    (plot,) = sensitivity(study, objectives=["val/f1"], paper_trial=0)
    return plot


def drawn(plot: Plot) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(plot.draw().to_json())
    return plain


def titles(figure: dict[str, Any]) -> list[str]:
    axes = sorted(name for name in figure["layout"] if name.startswith("xaxis"))
    return [figure["layout"][name]["title"]["text"] for name in axes]


def lines(figure: dict[str, Any]) -> list[tuple[list[Any], list[float]]]:
    """The sweep's points by panel."""
    return [(trace["x"], trace["y"]) for trace in figure["data"] if "sweep" in trace["name"] and trace["y"]]


class TestASweep:
    def test_is_a_line_a_parameter_through_the_papers_own_point(self) -> None:
        figure = drawn(the_plot(study_of(*swept())))
        assert lines(figure) == [
            ([0.1, 0.3, 0.5], [0.59, 0.6, 0.58]),
            ([5, 20, 80], [0.594, 0.6, 0.597]),
            (["unet", "null"], [0.6, 0.6]),
        ]
        modes = [trace["mode"] for trace in figure["data"] if "sweep" in trace["name"]]
        assert modes == ["lines+markers", "lines+markers", "markers"], "categories are not joined"

    def test_marks_the_papers_value_in_each_panel(self) -> None:
        figure = drawn(the_plot(study_of(*swept())))
        marks = [(shape["xref"], shape["x0"], shape["x1"]) for shape in figure["layout"]["shapes"]]
        assert marks == [("x", 0.3, 0.3), ("x2", 20, 20), ("x3", 0, 0)]

    def test_is_on_a_logarithmic_axis_where_the_parameter_is(self) -> None:
        layout = drawn(the_plot(study_of(*swept())))["layout"]
        assert layout["xaxis2"]["type"] == "log"
        assert {5, 10, 20, 50} <= set(layout["xaxis2"]["tickvals"])
        assert "type" not in layout["xaxis"]
        assert layout["xaxis3"]["type"] == "category"

    def test_tells_the_largest_drop_from_its_best(self) -> None:
        lam, k, kind = titles(drawn(the_plot(study_of(*swept()))))
        assert "<b>lam</b>" in lam
        assert "falls by at most 0.02 (3.3 %)" in lam
        assert "falls by at most 0.006 (1.0 %)" in k
        assert "stays the same" in kind

    def test_of_an_objective_that_should_be_low_tells_the_largest_rise(self) -> None:
        lam, *_ = titles(drawn(the_plot(study_of(*swept(high=False), high=False))))
        assert "rises by at most 0.02 (3.3 %)" in lam

    def test_leaves_other_trials_beside_its_line_and_out_of_its_words(self) -> None:
        far = ({LAM: 0.2, K: 40, KIND: "unet"}, {}, [0.1])
        near = ({LAM: 0.4, K: 10, KIND: "unet"}, {}, [0.601])
        plot = the_plot(study_of(*swept(), far, near))
        figure = drawn(plot)
        assert "falls by at most 0.02 (3.3 %)" in titles(figure)[0]
        others = next(trace for trace in figure["data"] if trace["name"] == "other trials")
        assert (others["x"], others["y"]) == ([0.2, 0.4], [0.1, 0.601])
        low, high = figure["layout"]["yaxis"]["range"]
        assert 0.1 < low < 0.58
        assert high > 0.601
        assert "1 trial lies beyond the axis; a double click shows it." in plot.shows

    def test_takes_up_a_trial_that_happens_to_vary_the_parameter_alone(self) -> None:
        by_chance = ({**PAPER, LAM: 0.2}, {}, [0.57])
        figure = drawn(the_plot(study_of(*swept(), by_chance)))
        assert lines(figure)[0] == ([0.1, 0.2, 0.3, 0.5], [0.59, 0.57, 0.6, 0.58])

    def test_that_has_only_begun_says_so(self) -> None:
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({**PAPER, LAM: 0.1}, user_attrs={SWEPT: LAM})
        with pytest.raises(Undrawable, match="No trial of a sweep has completed"):
            the_plot(study).draw()

    def test_without_a_value_of_the_papers_trial_is_drawn_all_the_same(self) -> None:
        study = optuna.create_study(direction="maximize")
        study.add_trial(create_trial(state=TrialState.FAIL, params=PAPER, distributions=KNOWN))
        study.add_trials(study_of(*swept()[1:]).trials)
        figure = drawn(the_plot(study))
        assert lines(figure)[0] == ([0.1, 0.5], [0.59, 0.58])
        assert figure["layout"]["shapes"][0]["x0"] == 0.3


class TestWithoutASweep:
    def test_the_numbers_of_enough_trials_are_drawn_and_no_drop_is_told(self) -> None:
        trials = [({LAM: 0.1 + 0.05 * n, K: 5, KIND: "unet"}, {}, [0.5 + 0.01 * n]) for n in range(LEAST)]
        figure = drawn(the_plot(study_of(*trials)))
        (title,) = titles(figure)
        assert "lam" in title
        assert "by at most" not in json.dumps(figure)
        assert "range" not in figure["layout"]["yaxis"]

    def test_nothing_is_drawn_of_fewer(self) -> None:
        trials = [({LAM: 0.1 + 0.05 * n}, {}, [0.5]) for n in range(LEAST - 1)]
        assert sensitivity(study_of(*trials), objectives=["val/f1"], paper_trial=0) == []


def test_several_objectives_have_a_figure_each() -> None:
    both = [(parameters, attributes, [score, 7e6]) for parameters, attributes, (score,) in swept()]
    plots = sensitivity(study_of(*both), objectives=["val/f1", "parameters"], paper_trial=0)
    assert [plot.title for plot in plots] == [
        "One parameter at a time of val/f1",
        "One parameter at a time of parameters",
    ]
    assert "stays the same" in titles(drawn(plots[1]))[0]


def test_parameters_of_one_name_are_told_apart_by_what_is_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("phases.first.optimizer.lr", "phases.second.optimizer.lr"):
        monkeypatch.setitem(KNOWN, name, FloatDistribution(1e-5, 1e-1, log=True))
    paper = {"phases.first.optimizer.lr": 1e-3, "phases.second.optimizer.lr": 1e-3}
    trials = [(paper, {}, [0.5])]
    trials += [({**paper, name: 1e-5}, {SWEPT: name}, [0.4]) for name in paper]
    figure = drawn(the_plot(study_of(*trials)))
    assert [
        "<b>first.optimizer.lr</b>" in titles(figure)[0],
        "<b>second.optimizer.lr</b>" in titles(figure)[1],
    ]
    assert figure["layout"]["xaxis"]["ticktext"] == ["1e-05", "0.0001", "0.001"]


def test_the_report_has_a_section_of_it_only_where_there_is_something_to_show(tmp_path: Path) -> None:
    facts = StudyFacts(objectives=["val/f1"], data="d", command="c")

    def page(study: optuna.Study) -> str:
        path = write_report(study, tmp_path / "report.html", title="t", extra=facts)
        return path.read_text(encoding="utf-8")

    with_sweep, without = page(study_of(*swept())), page(study_of(*swept()[:1]))
    for text in ('<h2 id="sensitivity">', 'href="#sensitivity"', "falls by at most 0.02"):
        assert text in with_sweep
        assert text not in without
