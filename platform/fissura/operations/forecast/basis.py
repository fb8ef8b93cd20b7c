"""The basis of a forecast: an earlier study, a measurement here, or a given number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from fissura.core.progress import Say
from fissura.core.text import count
from fissura.operations.forecast.forecast import Lanes
from fissura.operations.forecast.learning_curves import Assumed, Course, read_study
from fissura.operations.forecast.measure import measure
from fissura.operations.forecast.simulation import Costs
from fissura.records.study_ranking import runs_to_keep
from fissura.spaces.space import LoadedSpace, moves_phases
from fissura.studies.study import find_study

if TYPE_CHECKING:
    from fissura.data.cache import PreparedData

PARALLEL = 0.8
"""The default share of an epoch that more CPUs shorten."""
SPREAD = 0.1
"""The default scatter of an epoch's time within a trial."""
PHASES = 200
"""The number of random trials whose last phases are drawn."""


@dataclass(frozen=True)
class Basis:
    """The learning curves of trials, and their source; `seconds` are those of an epoch of each setting on
    `cpus` CPUs, and `parallel` the share of them that more CPUs shorten."""

    draw: Callable[[int, Random], Course]
    seconds: tuple[float, ...]
    cpus: int
    parallel: float
    costs: Costs
    spread: float
    text: str

    def paced(self, lanes: Lanes) -> Lanes:
        """The lanes with the pace of their CPUs, by Amdahl's law; on GPUs all have the same."""
        if lanes.gpus:
            return lanes
        planned, measured = (1 - self.parallel + self.parallel / cpus for cpus in (lanes.cpus, self.cpus))
        return replace(lanes, slower=planned / measured)


def basis_of_study(path: Path, space: LoadedSpace, *, epochs: int) -> Basis:
    """The trials of an earlier study of the same space, or of one like it.

    Raises:
        SpaceError: there is no study, or none of its trials records its epochs' seconds.
    """
    from fissura.records.run_files import MANIFEST, read_manifest

    study = find_study(path)
    measured, times = read_study(study, epochs=epochs, startup=startup_of(space), phases=space.last_phases)
    runs = [study.runs / run for run in runs_to_keep(study.load(), best=1)]
    cpus = next((read_manifest(run).cpus for run in runs if (run / MANIFEST).is_file()), None) or 1
    trials = count(len(measured.trials), "trial")
    return Basis(
        draw=measured.draw,
        seconds=tuple(times.epoch),
        cpus=cpus,
        parallel=PARALLEL,
        costs=Costs(actor=times.actor, first=times.first),
        spread=times.spread,
        text=f"times and curves of {trials} of {study.path}, on {count(cpus, 'CPU')} each; a trial's"
        f" other CPUs would shorten {PARALLEL:.0%} of an epoch (assumed)",
    )


def basis_of_measurement(
    space: LoadedSpace, data: "PreparedData", *, settings: int, most_cpus: int, gpus: int, seed: int, say: Say
) -> Basis:
    """Some steps of the real trainer here, for `settings` settings of the space."""
    measured = measure(
        space, data, settings=settings, cpus=1, most_cpus=1 if gpus else most_cpus, seed=seed, say=say
    )
    return Basis(
        draw=Assumed(measured.seconds, space.longest, startup_of(space), drawn_phases(space)).draw,
        seconds=measured.seconds,
        cpus=measured.cpus,
        parallel=measured.parallel,
        costs=Costs(first=measured.first),
        spread=SPREAD,
        text=f"{len(measured.seconds)} settings trained for some steps here; more CPUs shorten"
        f" {measured.parallel:.0%} of an epoch; learning curves are assumed",
    )


def basis_of_seconds(seconds: float, space: LoadedSpace, *, cpus: int) -> Basis:
    """An epoch's seconds, as given for a trial on `cpus` CPUs or its GPU."""
    return Basis(
        draw=Assumed((seconds,), space.longest, startup_of(space), drawn_phases(space)).draw,
        seconds=(seconds,),
        cpus=cpus,
        parallel=PARALLEL,
        costs=Costs(),
        spread=SPREAD,
        text=f"as given, on {count(cpus, 'CPU')}; more would shorten {PARALLEL:.0%} of"
        " it, and learning curves are as assumed",
    )


def startup_of(space: LoadedSpace) -> int:
    """The number of random trials before the sampler learns; all of them if it never does."""
    sampler = space.definition.sampler
    return sampler.startup if sampler.kind == "tpe" else 1_000_000


def drawn_phases(space: LoadedSpace) -> tuple[range, ...]:
    """The last phases of random trials; of one where all trials have the same."""
    if not any(map(moves_phases, space.distributions)):
        return tuple(space.last_phases([{}]))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [space.suggest(study.ask()) for _ in range(PHASES)]
    return tuple(space.last_phases(points))


def typical(seconds: Sequence[float]) -> str:
    """An epoch's seconds over settings, in words."""
    if len(seconds) == 1:
        return f"{seconds[0]:.3g} s an epoch"
    return f"{median(seconds):.3g} s an epoch ({min(seconds):.3g} to {max(seconds):.3g} by setting)"
