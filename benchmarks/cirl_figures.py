"""The pictures that CIRL's paper draws, of one's own runs, on one HTML page.

Figure 2: the variance that Phase I learns, of the same training images, a column a run: train one with
`phases.ambiguity.loss.distance=wasserstein` and one with `kl`. Figures 1b and 6: t-SNE of the features of
crack pixels and of their margins, a plot a run: one with BCE, one of `phases.clustering.loss.term=nnclr`, one
of `bound`. The curves of Figure 4 are in the report of `fissura search cirl --sweep ...`.

Run: python benchmarks/cirl_figures.py --data cfd:data/cfd --out cirl.html RUN [RUN ...]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from markupsafe import Markup

from fissura.core.files import replacing
from fissura.data.cache import default_cache
from fissura.data.datasets import parse_datasets
from fissura.data.prepared import PreparedData
from fissura.data.trainable import prepare_training
from fissura.losses import marginal_region
from fissura.losses.ambiguity import VARIANCE
from fissura.reports.classification_plots import feature_map
from fissura.reports.figures import Plot, draw_all
from fissura.reports.html import page, part
from fissura.reports.pictures import data_url
from fissura.segmentation.kept_maps import file_of, read_maps
from fissura.segmentation.predict import Predictor

IMAGES, PIXELS_AN_IMAGE, SEED, WIDTH = 4, 60, 0, 320


def variance_figures(predictors: Sequence[Predictor], data: PreparedData) -> Markup:
    """Image, mask and each run's variance map, of training images spread over the data."""
    train = data.indices("train")
    shown = [train[i] for i in np.linspace(0, len(train) - 1, min(IMAGES, len(train))).astype(int)]
    maps = {
        _title(predictor): read_maps(predictor.run, VARIANCE, data=data)
        for predictor in predictors
        if predictor.run and (predictor.run / file_of(VARIANCE)).is_file()
    }
    rows = []
    for index in shown:
        figures = [
            part("figure", data_url(np.array(data.image(index)), kind="jpeg", width=WIDTH), "Image"),
            part("figure", data_url(data.mask(index) * 255, kind="png", width=WIDTH), "Mask"),
        ]
        for title, kept in maps.items():
            grey = np.rint(255 * kept[index].astype(np.float32)).astype(np.uint8)
            figures.append(part("figure", data_url(grey, kind="png", width=WIDTH), title))
        rows.append(part("gallery", f"Variance after Phase I, {data.entries[index].name}", figures))
    note = part("muted", "The variance is drawn as sigma^2 / (1 + sigma^2): white is 1.")
    return Markup().join([note, *rows])


def feature_plot(predictor: Predictor, data: PreparedData) -> Plot:
    """t-SNE of the features of crack pixels and of pixels of their margins, of training images."""
    random, train = np.random.default_rng(SEED), data.indices("train")
    features, labels, names = [], [], []
    for index in random.choice(train, min(8, len(train)), replace=False):
        of_image = _features(predictor, np.array(data.image(index)))
        _, height, width = of_image.shape
        mask = torch.from_numpy(np.array(data.mask(index)))[None, None]
        margin = marginal_region(mask)[0, 0].numpy()
        for label, region in ((0, margin), (1, mask[0, 0].numpy())):
            rows, columns = np.nonzero(region[:height, :width])
            some = random.permutation(len(rows))[:PIXELS_AN_IMAGE]
            rows, columns = rows[some], columns[some]
            features.append(of_image[:, rows, columns].T)
            labels.append(np.full(len(some), label))
            names += [f"row {row}, column {column}" for row, column in zip(rows, columns, strict=True)]
    classes = np.concatenate(labels)
    plot = feature_map(
        np.concatenate(features),
        labels=classes,
        predictions=classes,  # no pixel is marked as wrong: the picture is of features
        classes=("margin", "crack"),
        names=names,
        seed=SEED,
    )
    shows = "Pixels of cracks and of their margins as t-SNE lays their features out: near means alike."
    return Plot(f"Features: {_title(predictor)}", shows, plot.draw, height=plot.height)


def _features(predictor: Predictor, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "c _ _"]:
    """The features of the part of the image whose sides the network's stride divides."""
    model = predictor.model
    height, width = (side - side % model.stride for side in image.shape[:2])
    pixels = torch.from_numpy(image[:height, :width]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        features: Float[np.ndarray, "c _ _"] = model.features(predictor.recipe.data.normalise(pixels))[
            0
        ].numpy()
    return features


def _title(predictor: Predictor) -> str:
    """The network, and each phase's loss with what its ablations vary."""
    losses = []
    for phase in predictor.recipe.phases:
        plain = phase.loss.plain()
        losses.append(" ".join(plain[name] for name in ("kind", "distance", "term") if name in plain))
    return f"{predictor.recipe.model.kind}: {', '.join(losses)}"


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, metavar="KIND:ROOT", help="what the runs were trained on")
    parser.add_argument("--out", type=Path, default=Path("cirl.html"), help="the page (default: cirl.html)")
    options = parser.parse_args()
    predictors = [Predictor.open(run, device=torch.device("cpu")) for run in options.runs]
    resize = predictors[0].recipe.data.resize
    data = prepare_training(parse_datasets([options.data]), resize=resize, directory=default_cache())
    (plots,) = draw_all([feature_plot(predictor, data) for predictor in predictors])
    with replacing(options.out) as scratch:
        text = page("Figures of CIRL", variance_figures(predictors, data), plots)
        scratch.write_text(text, encoding="utf-8")
    print(f"page: {options.out}")


if __name__ == "__main__":
    main()
