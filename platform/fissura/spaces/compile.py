"""The parameters of a search over one recipe, as a define-by-run function: ask a trial, get a recipe."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fissura.core.errors import SpecError
from fissura.spaces.distributions import Choice, Constant, FloatRange, IntRange, among
from fissura.spaces.fields import ABSENT, Fault, assign, attempt, find, resolve

if TYPE_CHECKING:
    import optuna

    from fissura.training.experiment import Experiment

Distribution = Choice | IntRange | FloatRange
Entry = Distribution | Constant
Point = dict[str, Any]


@dataclass(frozen=True)
class Parameters:
    """What is searched and what is set, by path, over `recipe`, the paper's own.

    An entry stands after those that its `when` names, a field after the `kind` and the spec around it. A
    point is a value for each searched path whose condition holds.
    """

    recipe: "Experiment"
    entries: Mapping[str, Entry]

    @property
    def distributions(self) -> dict[str, Distribution]:
        """What is searched."""
        return {path: entry for path, entry in self.entries.items() if not isinstance(entry, Constant)}

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Point:
        """A point; Optuna is asked for no parameter whose condition does not hold."""
        known: Point = {}
        for path, entry in self.entries.items():
            if self.active(path, known):
                known[path] = entry.suggest(trial, path)
        return self._searched(known)

    def recipe_for(self, point: Mapping[str, Any]) -> "Experiment":
        """The recipe at a point.

        Raises:
            SpecError: the values break a rule together, with one line a problem.
        """
        recipe, faults = self.attempt(point)
        if recipe is None:
            raise SpecError(*(fault.text for fault in faults))
        return recipe

    def paper_point(self) -> Point:
        """The recipe's own values: the first trial of a search.

        Where a profile leaves the paper and the recipe's own value cannot be had, it is the first that can.
        """
        return self.completed({})

    def active(self, path: str, known: Mapping[str, Any]) -> bool:
        """Whether the condition of an entry holds where `known` is searched and set."""
        when = self.entries[path].when
        return all(other in known and among(known[other], values) for other, values in when.items())

    def attempt(self, point: Mapping[str, Any]) -> "tuple[Experiment | None, list[Fault]]":
        """`recipe_for` that returns its faults."""
        known: Point = {}
        for path, entry in self.entries.items():
            if self.active(path, known):
                if isinstance(entry, Constant):
                    known[path] = entry.value
                elif path in point:
                    known[path] = point[path]
        return attempt(self.recipe, {**known, **point})

    def point_of(self, recipe: "Experiment") -> Point:
        """The point at which a recipe stands, whatever its values.

        Raises:
            SpecError: the recipe has no such path.
        """
        plain, known = recipe.plain(), Point()
        for path in self.entries:
            if self.active(path, known):
                known[path] = resolve(plain, type(recipe), path).value
        return self._searched(known)

    def completed(self, point: Mapping[str, Any]) -> Point:
        """The point, with the recipe's own value, or else the first, for each parameter that it lacks."""
        return self._searched({path: value for path, _, value in self.walk(point)})

    def walk(self, point: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Each active entry: its path, the recipe's own value (or ABSENT), the value in its place.

        That is the point's, or else the recipe's own if the entry has it, or else the entry's first.
        """
        plain = self.recipe.plain()
        known: Point = {}
        for path, entry in self.entries.items():
            if not self.active(path, known):
                continue
            field = find(plain, type(self.recipe), path)
            own = ABSENT if field is None else field.value
            known[path] = point.get(path, own if entry.contains(own) else entry.corners()[0])
            yield path, own, known[path]
            if field is not None:
                # only while a space is checked: `attempt` tells it
                with contextlib.suppress(SpecError):
                    assign(plain, path, known[path], model_type=type(self.recipe))

    def _searched(self, known: Point) -> Point:
        return {path: value for path, value in known.items() if not isinstance(self.entries[path], Constant)}
