"""Finds the cracks in a folder of images with onnxruntime, NumPy and Pillow: `python segment.py FOLDER OUT`.

OUT gets one PNG an image: 255 where the crack probability is at least the threshold, else 0. Standard output
has one JSON line an image. A file that cannot be read is named in its line, with `error`, and never stops the
others. The exit code is 0 when all images were segmented, 1 when some were not, and 2 when the bundle or
what was asked for is wrong.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from card import FOLDER, BundleError, Network, read_card, require_numbers
from images import Unreadable, image_files, read_all, write_grey
from small_cracks import without_small_cracks
from windows import probability_map, resized, resized_map


def crack_probability(network: Network, image: np.ndarray, *, card: dict[str, Any]) -> np.ndarray:
    """uint8 [h w] of an image uint8 [h w 3]: the crack probability of each pixel times 255, rounded."""
    height, width = image.shape[:2]
    if card["resize"] is not None:
        image = resized(image, *card["resize"])
    probability = probability_map(network, image, card=card)
    require_numbers(probability, card=card)
    probability = resized_map(without_small_cracks(probability, card["smallest_crack"]), height, width)
    return np.asarray(np.rint(probability * 255), np.uint8)


def targets(folder: Path, paths: list[Path]) -> list[Path]:
    """Where the mask of each file goes below OUT; a.jpg and a.png beside each other keep their suffixes."""
    names = [path.relative_to(folder) for path in paths]
    count = Counter(name.with_suffix("") for name in names)
    return [
        name.with_suffix(".png") if count[name.with_suffix("")] == 1 else Path(f"{name}.png")
        for name in names
    ]


def main(arguments: "list[str] | None" = None) -> int:
    """Runs one command line; gives its exit code."""
    parser = argparse.ArgumentParser(description="Finds the cracks in the images of a folder.")
    parser.add_argument("folder", type=Path, help="folder of images; those in folders below it count too")
    parser.add_argument("out", type=Path, help="folder that the masks go to")
    parser.add_argument("--model", default="model.onnx", help="model.onnx or model.int8.onnx")
    parser.add_argument(
        "--threshold", type=float, help="crack probability from which a pixel is one (0 to 1)"
    )
    parser.add_argument("--values", choices=("masks", "probabilities"), default="masks", help="to write")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime (default: one a core)")
    asked = parser.parse_args(arguments)
    try:
        card = read_card("segmentation", needs=[asked.model])
        threshold = card["threshold"] if asked.threshold is None else asked.threshold
        if not 0 <= threshold <= 1:
            raise BundleError(f"--threshold {threshold}: a probability, 0 to 1")
        if asked.out.resolve() == asked.folder.resolve():
            raise BundleError(f"{asked.out}: the masks would replace the images; name another folder")
        network = Network(FOLDER / asked.model, threads=asked.threads)
        paths = image_files(asked.folder)
        if not paths:
            raise BundleError(f"{asked.folder}: no folder that holds images")
    except BundleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    done = 0
    for target, (name, pixels) in zip(
        targets(asked.folder, paths), read_all(asked.folder, paths), strict=True
    ):
        line: dict[str, Any] = {"name": name}
        try:
            if isinstance(pixels, Unreadable):
                raise pixels
            probability = crack_probability(network, pixels, card=card)
            mask = np.where(probability / 255 >= threshold, np.uint8(255), np.uint8(0))
            (asked.out / target).parent.mkdir(parents=True, exist_ok=True)
            write_grey(asked.out / target, mask if asked.values == "masks" else probability)
            line |= {"written": target.as_posix(), "crack_share": round(float((mask > 0).mean()), 6)}
            done += 1
        except OSError as error:
            sys.stderr.write(f"error: {asked.out}: {error.strerror or error}\n")
            return 2
        except BundleError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        except Unreadable as error:
            line["error"] = str(error)
        # onnxruntime's errors have no common base, and no image stops the others
        except Exception as error:
            line["error"] = f"not segmented ({' '.join(str(error).split())[:200]})"
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    if done < len(paths):
        sys.stderr.write(f"{len(paths) - done} of {len(paths)} images could not be segmented\n")
    return 0 if done == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main())
