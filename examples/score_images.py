"""Opens a run and scores an image or a folder of them: a mask of each, and the share of it that is crack.

    python examples/score_images.py RUN IMAGE_OR_FOLDER OUT

For thousands of images `fissura batch FOLDER --run RUN --out OUT` uses all CPUs or GPUs, and goes on where it
was stopped; `fissura serve` answers over HTTP.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

from fissura.data.images import read_rgb
from fissura.deploy.model import Segmented, open_model

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


def main(run: str, images: str, out: str) -> None:
    """Prints a line an image."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = open_model(Path(run), device=device)
    place = Path(images)
    paths = (
        sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        if place.is_dir()
        else [place]
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    for path in paths:
        (answer,) = model([read_rgb(path)])
        if isinstance(answer, Segmented):
            Image.fromarray(answer.mask).save(Path(out) / f"{path.stem}.png")
            print(f"{path.name}: {answer.mask.mean():.2%} crack at a threshold of {answer.threshold:.2f}")
        else:
            print(f"{path.name}: {answer.label}")


if __name__ == "__main__":
    main(*sys.argv[1:])
