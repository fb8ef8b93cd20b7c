"""How long an epoch takes here: a few steps of the real trainer on a few of the images, scaled to all."""

import math
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.core.errors import SpecError
from fissura.core.progress import Say
from fissura.core.seeding import derive
from fissura.core.text import count
from fissura.spaces.space import LoadedSpace

if TYPE_CHECKING:
    from fissura.data.cache import PreparedData
    from fissura.segmentation.recipe import Recipe

STEPS, VALIDATED, DRAWS = 8, 8, 100


@dataclass(frozen=True)
class Measurement:
    """Seconds of an epoch of each setting, the paper's first, on `cpus` CPUs or the GPU; `first` is what a
    first epoch takes beyond the others; `parallel` the share of the paper's epoch that more CPUs shorten
    (Amdahl)."""

    seconds: tuple[float, ...]
    first: float
    cpus: int
    parallel: float


def measure(
    space: LoadedSpace, data: "PreparedData", *, settings: int, cpus: int, most_cpus: int, seed: int, say: Say
) -> Measurement:
    """Trains the paper's own setting and `settings - 1` random ones of the space for some steps each.

    `data` is as `prepare_training` gives it.
    """
    from fissura.segmentation.recipe import segmenter_of

    recipes = [segmenter_of(space.recipe_for(space.paper_point())), *_drawn(space, settings - 1, seed)]
    seconds, firsts = [], []
    for number, recipe in enumerate(recipes, start=1):
        first, later = seconds_an_epoch(recipe, data, cpus=cpus)
        say(f"setting {number} of {len(recipes)}: {later:.2f} s an epoch on {count(cpus, 'CPU')}")
        seconds.append(later)
        firsts.append(first)
    parallel = 0.0
    if most_cpus > cpus:
        _, more = seconds_an_epoch(recipes[0], data, cpus=most_cpus)
        say(f"the paper's setting: {more:.2f} s an epoch on {count(most_cpus, 'CPU')}")
        parallel = amdahl_share(seconds[0], more, cpus=cpus, more_cpus=most_cpus)
    return Measurement(tuple(seconds), max(firsts[0], 0.0), cpus, parallel)


def amdahl_share(seconds: float, more: float, *, cpus: int, more_cpus: int) -> float:
    """The share p of a work's time on one CPU that CPUs divide among them, where it takes `seconds` on `cpus`
    and `more` seconds on `more_cpus`: time(c) = time(1) (1 - p + p / c)."""
    ratio = more / seconds
    denominator = (1 - 1 / more_cpus) - ratio * (1 - 1 / cpus)
    return min(1.0, max(0.0, (1 - ratio) / denominator)) if denominator > 0 else 0.0


def _drawn(space: LoadedSpace, count: int, seed: int) -> "list[Recipe]":
    import optuna

    from fissura.segmentation.recipe import segmenter_of

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=derive(seed, "measure") % 2**32))
    recipes: list[Recipe] = []
    for _ in range(DRAWS * count):
        if len(recipes) == count:
            break
        try:
            recipes.append(segmenter_of(space.recipe_for(space.suggest(study.ask()))))
        except SpecError:
            continue
    return recipes


def seconds_an_epoch(recipe: "Recipe", data: "PreparedData", *, cpus: int) -> tuple[float, float]:
    """The extra seconds of a first epoch over a later one, and the later one's seconds, over all images."""
    from fissura.data.epochs import Epochs
    from fissura.segmentation.trainer import Trainer
    from fissura.training.runtime import LocalRuntime

    # weights change the values, not the time, and need not be fetched for this
    model = recipe.model.model_copy(update={"weights": "none"})
    shares = len(recipe.phases)
    short = recipe.model_copy(update={"model": model, "epochs": 2 * shares})
    size, stride = recipe.data.batch_size, model.build().stride
    whole = Epochs(data, pipeline=recipe.data, stride=stride, seed=0).samples
    each = max(1, whole // max(1, len(data.indices("train"))))
    few = data.some(train=max(1, math.ceil(STEPS * size / each)), val=VALIDATED)
    samples = Epochs(few, pipeline=recipe.data, stride=stride, seed=0).samples
    with tempfile.TemporaryDirectory(prefix="fissura-measure-") as folder:
        trainer = Trainer(short, data=few, run=Path(folder) / "run", runtime=LocalRuntime(cpus=cpus))
        while not trainer.finished:
            trainer.step()
        ends = [0.0, *(record["seconds"] for record in trainer.history)]
        names = [record["phase"] for record in trainer.history]
        rates = [record.get("images_per_second", math.inf) for record in trainer.history]
    spans = [end - begin for begin, end in pairwise(ends)]
    scale = len(data.indices("val")) / len(few.indices("val"))
    if not recipe.phases:  # nothing is trained: it is the validation that takes time
        return 0.0, spans[0] * scale
    lengths = dict(zip((phase.name for phase in recipe.phases), recipe.phase_epochs, strict=True))
    total = 0.0
    for name, length in lengths.items():
        if name in names:
            last = len(names) - 1 - names[::-1].index(name)
            training = samples / rates[last]
            total += length * (training * whole / samples + (spans[last] - training) * scale)
    return spans[0] - spans[1], total / sum(lengths.values())
