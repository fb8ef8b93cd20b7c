"""One profile of a search space over its recipe: what is searched, what is fixed, and where it says so."""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from fissura.core.errors import SpecError
from fissura.search.check import Problem, broken_rules, ordered, unmet_conditions, unreachable_paper
from fissura.search.compile import Distribution, Parameters
from fissura.search.distributions import AnyDistribution, among, distribution_key
from fissura.search.paths import resolve
from fissura.search.space import broken_key
from fissura.search.wording import problems, shown
from fissura.search.yaml import Location

if TYPE_CHECKING:
    from fissura.engine.recipe import Recipe

Tell = Callable[[Location | None, str], None]
"""Takes a problem and its place in the file; a value from outside the file has none."""

_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(AnyDistribution)


class Layer:
    """The entries of a space, of one profile and of the command line, the later over the earlier."""

    def __init__(self, recipe: "Recipe", *, tell: Tell) -> None:
        self._recipe = recipe
        self._plain = recipe.plain()
        self._tell = tell
        self.notes: dict[Location, str] = {}
        self._where: dict[str, Location | None] = {}
        self._searched: dict[str, Distribution | None] = {}
        self._fixed: dict[str, Any] = {}

    def add_space(self, entries: Mapping[str, Any]) -> None:
        """Searches each path."""
        for path, value in self._entries(entries, ("space",)):
            self._search(path, value)
        self._check_conditions(self._searched)

    def add_profile(self, entries: Mapping[str, Any], name: str) -> None:
        """Searches a path where the profile gives a distribution, and fixes it where it gives a value."""
        before = dict(self._searched)
        own = {}
        for path, value in self._entries(entries, ("profiles", name)):
            if distribution_key(value) is None:
                self._fix(path, value)
            else:
                self._search(path, value)
                own[path] = self._searched[path]
        self._check_conditions(own, beside=before)

    def add_fixed(self, values: Mapping[str, Any]) -> None:
        """Fixes each path, over all else."""
        for path, value in values.items():
            path = self._canonical(path)
            self._where[path] = None
            self._fix(path, value)

    def parameters(self) -> Parameters:
        """What the entries amount to; tells every rule they break."""
        met = _met(self._searched, self._fixed)
        distributions, waiting = ordered(met)
        for path in waiting:
            self._tell(
                self._where[path], f"`{path}`: its `when` waits for itself, by way of {', '.join(waiting)}"
            )
        parameters = Parameters(self._recipe, self._fixed, distributions)
        unread = [path for path, one in self._searched.items() if one is None]
        self._tell_all(broken_rules(parameters, unread=unread))
        for problem in unreachable_paper(parameters):
            location = self._location(problem.path)
            if location and location[0] == "profiles":
                # a profile may leave the paper's setting: that is what it is for
                own = parameters.paper_point()[problem.path]
                self.notes[location] = f"{problem.text}; the first trial has {shown(own)}"
            else:
                remedy = "widen it, so that the paper's configuration can be the first trial"
                self._tell(location, f"{problem.text}; {remedy}")
        return parameters

    def _canonical(self, path: str) -> str:
        try:
            return resolve(self._plain, type(self._recipe), path).path
        except SpecError:
            return path

    def _entries(self, entries: Mapping[str, Any], section: Location) -> Iterator[tuple[str, Any]]:
        """The entries by canonical path; tells of two that are the same field."""
        seen: dict[str, str] = {}
        for given, value in entries.items():
            path, location = self._canonical(given), (*section, given)
            if path in seen:
                self._tell(location, f"`{given}` is the same field as `{seen[path]}`; remove one")
                continue
            seen[path] = given
            self._where[path] = location
            yield path, value

    def _search(self, path: str, value: Any) -> None:
        self._fixed.pop(path, None)
        self._searched[path] = None
        try:
            one = _DISTRIBUTION.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            location = self._where[path] or ()
            for problem in problems(error):
                within = ("space", location[-1], *problem["loc"])
                self._tell((*location, *problem["loc"]), broken_key({**problem, "loc": within}))
        else:
            when = {self._canonical(other): values for other, values in one.when.items()}
            self._searched[path] = one.model_copy(update={"when": when})

    def _fix(self, path: str, value: Any) -> None:
        self._searched.pop(path, None)
        self._fixed[path] = value

    def _check_conditions(
        self,
        distributions: Mapping[str, Distribution | None],
        beside: Mapping[str, Distribution | None] = MappingProxyType({}),
    ) -> None:
        read = {path: one for path, one in distributions.items() if one}
        self._tell_all(unmet_conditions(read, searched={**beside, **distributions}))

    def _tell_all(self, problems: Iterator[Problem]) -> None:
        for problem in problems:
            location = self._location(problem.path)
            if location is not None and problem.index is not None:
                location = (*location, "choice", problem.index)
            self._tell(location, problem.text)

    def _location(self, path: str) -> Location | None:
        """Where the entry for a path is written; None if outside the file."""
        return self._where.get(path, ("recipe",))


def _met(searched: Mapping[str, Distribution | None], fixed: Mapping[str, Any]) -> dict[str, Distribution]:
    """The distributions whose conditions can hold, without the conditions that hold by what is fixed."""
    left = {path: one for path, one in searched.items() if one}
    while True:
        kept = {
            path: one
            for path, one in left.items()
            if all(
                among(fixed[other], values) if other in fixed else other in left
                for other, values in one.when.items()
            )
        }
        if len(kept) == len(left):
            break
        left = kept
    return {
        path: one.model_copy(
            update={"when": {other: values for other, values in one.when.items() if other not in fixed}}
        )
        for path, one in left.items()
    }
