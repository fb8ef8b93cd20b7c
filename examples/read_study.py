"""Reads a study as data frames: trials, leaderboard, and the learning curve and images of its best run.

python examples/read_study.py STUDY
"""

import json
import sys
from pathlib import Path

import pandas

import fissura
from fissura.studies.study import find_study


def main(folder: str) -> None:
    """Prints four tables."""
    study = find_study(Path(folder))
    trials = study.load().trials_dataframe(attrs=("number", "value", "state", "params"))
    print(trials.to_string(), "\n")  # an Optuna study: all that Optuna draws or counts works on it

    board = fissura.leaderboard(folder)
    ranking = board.to_pandas()  # every number; a few of its columns
    print(ranking[["protocol", "rank", "recipe", "images", "seconds"]].to_string(), "\n")

    run = board.best_run
    if run is None:
        return
    curve = pandas.DataFrame(json.loads((run / "metrics.json").read_text())["history"])
    print(curve[["epoch", "train/loss", "val/loss", "val/f1"]].to_string(), "\n")
    images = pandas.read_parquet(run / "run.parquet")  # one row an image and protocol
    worst = images.sort_values("f1").head()
    print(worst[["image", "protocol", "f1", "precision", "recall", "crack_pixels"]].to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
