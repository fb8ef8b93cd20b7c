"""A training that survives out-of-memory errors: it resumes its last state with half as many images at a
time."""

import gc
from pathlib import Path

import torch

from fissura.core.errors import ResourceError, named
from fissura.core.progress import OnStep
from fissura.core.retry import persist
from fissura.data.cache import PreparedData
from fissura.segmentation.micro_batches import halve
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.trainer import Record, Trainer
from fissura.training.allocator import return_memory
from fissura.training.out_of_memory import is_out_of_memory
from fissura.training.runtime import Runtime

# PyTorch's message where a channel has one value: a single image, reduced to 1x1
NEEDS_TWO = "Expected more than 1 value per channel"


class Training:
    """The training of `recipe` into `run`; `trainer` is the current attempt.

    Raises:
        WeightsError: the pretrained weights cannot be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        data: PreparedData,
        run: Path,
        runtime: Runtime,
        on_step: OnStep = lambda *_: None,
    ) -> None:
        self._recipe, self._data, self._run, self._runtime = recipe, data, run, runtime
        self._on_step = on_step
        self.trainer = self._open()

    def step(self) -> Record:
        """One epoch; see `Trainer.step`.

        Raises:
            ResourceError: not even one image at a time fits the memory; or one of several workers ran out
                of it, which it cannot repair alone.
        """
        while True:
            try:
                return self.trainer.step()
            except ValueError as error:
                if self.trainer.accumulation == 1 or NEEDS_TWO not in str(error):
                    raise
                raise ResourceError(
                    "out of memory, and batch normalisation cannot compute a part of one image"
                    f" ({named(error)}); lower the crop, or choose a smaller network"
                ) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = named(error)
            # outside the handler: the traceback no longer holds tensors
            self._halve(reason)

    def _open(self) -> Trainer:
        return Trainer(
            self._recipe, data=self._data, run=self._run, runtime=self._runtime, on_step=self._on_step
        )

    def _halve(self, reason: str) -> None:
        share, size = self.trainer.share, self.trainer.micro_batch
        if self._runtime.world_size > 1:
            raise ResourceError(
                f"out of memory with {size} images a worker ({reason}); share the batch among more workers,"
                " or lower data.batch_size or the crop"
            )
        if not persist(
            lambda: halve(self._run, share=share), what=str(self._run), on_wait=self._runtime.waiting
        ):
            raise ResourceError(
                f"out of memory with one image at a time ({reason}); lower the crop or the working size, or"
                " choose a smaller network"
            )
        del self.trainer
        gc.collect()
        return_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.trainer = self._open()
