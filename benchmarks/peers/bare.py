"""A photograph's bytes to the PNG of its mask, without a service."""

from pathlib import Path

import cv2
import numpy as np
import torch

from fissura.data.photograph import decode
from fissura.deploy.model import open_model


class Bare:
    """File bytes to the PNG of the mask, without a service."""

    def __init__(self, run: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(1)
        self._model = open_model(run, device=torch.device("cpu"))

    def __call__(self, photograph: bytes) -> bytes:
        [answer] = self._model([decode(photograph).pixels])
        mask = answer.mask.astype(np.uint8) * 255  # type: ignore[union-attr]
        return bytes(cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
