"""The parameters of a search over one recipe, as a define-by-run function: ask a trial, get a recipe."""

import contextlib
import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fissura.core.errors import SpecError
from fissura.search.distributions import Choice, FloatRange, IntRange, among
from fissura.search.paths import ABSENT, Fault, Plain, assign, attempt, depth_then_kind, resolve

if TYPE_CHECKING:
    import optuna

    from fissura.engine.recipe import Recipe

Distribution = Choice | IntRange | FloatRange
Point = dict[str, Any]


@dataclass(frozen=True)
class Parameters:
    """What is searched (`distributions`, by path) and what is set (`fixed`) over `recipe`, the paper's own.

    A distribution stands after those that its `when` names.
    """

    recipe: "Recipe"
    fixed: Mapping[str, Any]
    distributions: Mapping[str, Distribution]

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Point:
        """A value for each parameter whose condition holds; Optuna is asked for no other."""
        point: Point = {}
        for path, distribution in self.distributions.items():
            if self.active(path, point):
                point[path] = distribution.suggest(trial, path)
        return point

    def recipe_for(self, point: Mapping[str, Any]) -> "Recipe":
        """The recipe at a point.

        Raises:
            SpecError: the values break a rule together, with one line a problem.
        """
        recipe, faults = self.attempt(point)
        if recipe is None:
            raise SpecError(*(fault.text for fault in faults))
        return recipe

    def paper_point(self) -> Point:
        """The recipe's own values of the parameters whose condition holds: the first trial of a search.

        A field that the recipe lacks, because a profile chose another kind, gets the first value.
        """
        return self.completed({})

    def active(self, path: str, point: Mapping[str, Any]) -> bool:
        """Whether the condition of a parameter holds at a point."""
        when = self.distributions[path].when
        return all(other in point and among(point[other], values) for other, values in when.items())

    def attempt(self, point: Mapping[str, Any]) -> "tuple[Recipe | None, list[Fault]]":
        """`recipe_for` that returns its faults."""
        return attempt(self.recipe, {**self.fixed, **point})

    def own(self, path: str) -> Any:
        """The value at `path` before a search, or ABSENT."""
        try:
            return resolve(self._plain, type(self.recipe), path).value
        except SpecError:
            return ABSENT

    def completed(self, point: Mapping[str, Any]) -> Point:
        """The point and, for each other active parameter, the recipe's own value or else the first."""
        plain = copy.deepcopy(self._plain)
        full: Point = {}
        for path, distribution in self.distributions.items():
            if not self.active(path, full):
                continue
            try:
                own = resolve(plain, type(self.recipe), path).value
                value = own if distribution.contains(own) else distribution.corners()[0]
                full[path] = point.get(path, value)
                assign(plain, path, full[path], model_type=type(self.recipe))
            except SpecError:
                # only while a space is checked: `attempt` names the value that does not exist
                continue
        return {**full, **point}

    @functools.cached_property
    def _plain(self) -> Plain:
        plain = self.recipe.plain()
        for path in sorted(self.fixed, key=depth_then_kind):
            with contextlib.suppress(SpecError):
                assign(plain, path, self.fixed[path], model_type=type(self.recipe))
        return plain
