"""Pictures of classification show what they are given, and say why where there is nothing to show."""

import json
import re

import numpy as np
import pytest

from fissura.reports import classification_plots as pictures
from fissura.reports.classification_plots import (
    Candidate,
    confusion_plot,
    feature_map,
    front,
    pareto_plots,
    progress_plot,
)
from fissura.reports.figures import Plot, Undrawable, draw_all


def figure_of(plot: Plot) -> dict:
    """The figure as the page holds it."""
    (body,) = draw_all([plot])
    (data,) = re.findall(r'<script type="application/json" data-plot="plot-0">(.*?)</script>', body)
    return json.loads(data)


def features_of(rng: np.random.Generator, images: int = 60) -> dict:
    """Two classes apart, one image in ten classified wrongly."""
    labels = np.arange(images) % 2
    features = rng.normal(size=(images, 8)) + 6 * labels[:, None]
    predictions = np.where(np.arange(images) % 10 == 0, 1 - labels, labels)
    names = [f"image {index}" for index in range(images)]
    return {"features": features, "labels": labels, "predictions": predictions, "names": names}


def mapped(known: dict, **changes) -> Plot:
    known = known | changes
    return feature_map(known.pop("features"), classes=("sound", "cracked"), **known)


class TestFeatureMap:
    def test_every_image_is_a_point_coloured_by_label_and_marked_by_error(self, rng):
        known = features_of(rng)
        traces = {trace["name"]: trace for trace in figure_of(mapped(known))["data"]}
        assert {name: len(trace["x"]) for name, trace in traces.items()} == {
            "sound": 24,
            "cracked": 30,
            "sound, wrong": 6,
        }
        assert traces["sound"]["marker"]["color"] == traces["sound, wrong"]["marker"]["color"]
        assert traces["sound"]["marker"]["color"] != traces["cracked"]["marker"]["color"]
        assert traces["sound"]["marker"]["symbol"] != traces["sound, wrong"]["marker"]["symbol"]
        assert traces["sound, wrong"]["text"][0] == "image 0: sound, taken for cracked"

    def test_images_of_one_class_lie_together(self, rng):
        traces = figure_of(mapped(features_of(rng)))["data"]
        points = {
            name: np.concatenate(
                [np.stack([t["x"], t["y"]], axis=1) for t in traces if t["name"].startswith(name)]
            )
            for name in ("sound", "cracked")
        }
        centres = {name: own.mean(axis=0) for name, own in points.items()}
        for name, other in (("sound", "cracked"), ("cracked", "sound")):
            near = np.linalg.norm(points[name] - centres[name], axis=1)
            assert (near < np.linalg.norm(points[name] - centres[other], axis=1)).all()

    def test_one_seed_gives_one_picture(self, rng):
        known = features_of(rng)
        assert figure_of(mapped(known)) == figure_of(mapped(known))

    def test_of_many_images_some_are_drawn_and_the_caption_says_so(self, rng, monkeypatch):
        monkeypatch.setattr(pictures, "POINTS", 20)
        plot = mapped(features_of(rng))
        assert plot.shows.startswith("20 images of 60 as t-SNE")
        assert sum(len(trace["x"]) for trace in figure_of(plot)["data"]) == 20

    def test_what_has_no_picture_is_said(self, rng):
        known = features_of(rng)
        broken = known["features"].copy()
        broken[3, 0] = np.nan
        for features, reason in (
            (broken, "The features of 1 image are not finite"),
            (np.ones((60, 8)), "All images have the same features"),
        ):
            with pytest.raises(Undrawable, match=reason):
                mapped(known, features=features).draw()
        few = {name: values[:3] for name, values in known.items()}
        with pytest.raises(Undrawable, match="at least four images; there are 3"):
            mapped(few).draw()


class TestConfusion:
    def test_cells_hold_counts_and_shares_of_the_label(self):
        figure = figure_of(confusion_plot(np.array([[90, 10], [5, 15]]), classes=("sound", "cracked")))
        words = {(one["y"], one["x"]): one["text"] for one in figure["layout"]["annotations"]}
        assert words["sound", "cracked"] == "<b>10</b><br>10.0%"
        assert words["cracked", "cracked"] == "<b>15</b><br>75.0%"
        assert figure["data"][0]["z"] == [[0.9, 0.1], [0.25, 0.75]]

    def test_a_label_without_images_has_no_shares(self):
        figure = figure_of(confusion_plot(np.array([[3, 1], [0, 0]]), classes=("sound", "cracked")))
        words = [one["text"] for one in figure["layout"]["annotations"] if one["y"] == "cracked"]
        assert words == ["<b>0</b><br>—"] * 2

    def test_no_image_has_no_picture(self):
        with pytest.raises(Undrawable, match="No image was classified"):
            confusion_plot(np.zeros((2, 2), int), classes=("sound", "cracked")).draw()


def trial_of(f1: float, size: float, time: float) -> Candidate:
    return Candidate(label=f"{f1} {size} {time}", f1=f1, bytes=size, microseconds=time)


def literal_front(trials: list[Candidate]) -> set[int]:
    """Each trial against each other."""
    kept = set()
    for i, one in enumerate(trials):
        beaten = any(
            other.f1 >= one.f1 and other.bytes <= one.bytes and (other.f1, other.bytes) != (one.f1, one.bytes)
            for other in trials
        )
        if not beaten:
            kept.add(i)
    return kept


class TestPareto:
    def test_the_front_is_that_of_a_loop_over_all_pairs(self, rng):
        for _ in range(50):
            trials = [trial_of(*rng.integers(0, 6, 3).astype(float)) for _ in range(15)]
            assert set(front(trials, cost="bytes")) == literal_front(trials)

    def test_each_cost_has_its_own_front(self):
        trials = [trial_of(0.9, 100, 5), trial_of(0.8, 10, 9), trial_of(0.7, 50, 1)]
        by_bytes, by_time = (figure_of(plot) for plot in pareto_plots(trials))
        shown = {trace["name"]: trace["x"] for trace in by_bytes["data"]}
        assert shown == {"dominated": [50], "Pareto front": [10, 100]}
        assert {trace["name"]: trace["x"] for trace in by_time["data"]} == {
            "dominated": [9],
            "Pareto front": [1, 5],
        }

    def test_a_limit_is_a_line(self):
        first, second = pareto_plots([trial_of(0.9, 100, 5)], limits={"bytes": 100_000})
        assert figure_of(first)["layout"]["shapes"][0]["x0"] == 100_000
        assert "shapes" not in figure_of(second)["layout"]

    def test_trials_without_a_value_are_left_out(self):
        trials = [trial_of(float("nan"), 1, 1), trial_of(0.5, 2, 2)]
        assert figure_of(pareto_plots(trials)[0])["data"][1]["x"] == [2]
        with pytest.raises(Undrawable, match="at least one completed trial"):
            pareto_plots(trials[:1])[0].draw()


class TestProgress:
    def test_each_method_is_the_best_it_has_found_so_far(self):
        figure = figure_of(progress_plot({"adaptive": [0.7, 0.6, 0.9], "TPE": [float("nan"), 0.5, 0.8, 0.7]}))
        adaptive, tpe = figure["data"]
        assert (adaptive["name"], adaptive["x"], adaptive["y"]) == (
            "adaptive: 0.9000",
            [1, 2, 3],
            [0.7, 0.7, 0.9],
        )
        assert (tpe["name"], tpe["x"], tpe["y"]) == ("TPE: 0.8000", [2, 3, 4], [0.5, 0.8, 0.8])
        assert adaptive["line"]["color"] != tpe["line"]["color"]
        assert adaptive["line"]["dash"] != tpe["line"]["dash"]

    def test_without_a_completed_trial_there_is_no_picture(self):
        with pytest.raises(Undrawable, match="at least one completed trial"):
            progress_plot({"adaptive": [], "TPE": [float("nan")]}).draw()


def test_all_pictures_stand_on_one_page_and_fetch_nothing(rng):
    trials = [trial_of(0.9, 100, 5), trial_of(0.8, 10, 9)]
    plots = [
        mapped(features_of(rng)),
        confusion_plot(np.eye(3, dtype=int), classes=("minor", "wide", "</script>")),
        *pareto_plots(trials),
        progress_plot({"adaptive": [0.5]}),
    ]
    (body,) = draw_all(plots)
    assert body.count('data-plot="') == 5
    assert "Not drawn" not in body
    assert "</script>" not in re.sub(r"</script>(?=\s*(<|$))", "", body)
