"""One profile of a search space over its recipe: what is searched, what is fixed, and where it says so."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from fissura.core.rules import shown
from fissura.spaces.check import (
    PROBLEM_EFFORT,
    Effort,
    SpaceProblem,
    broken_rules,
    ordered,
    unmet_conditions,
    unreachable_paper,
)
from fissura.spaces.compile import Distribution, Entry, Parameters
from fissura.spaces.distributions import AnyDistribution, Constant, distribution_key
from fissura.spaces.fields import attempt, depth_then_kind, find, kinds_above
from fissura.spaces.space import broken_key
from fissura.spaces.strict_yaml import ITEM_LIMIT, Location
from fissura.spaces.wording import problems

if TYPE_CHECKING:
    from fissura.training.experiment import Experiment

Tell = Callable[[Location | None, str], None]
"""Takes a problem and its place in the file; a value from outside the file has none."""

_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(AnyDistribution)


class Layer:
    """The entries of a space, of one profile and of the command line, the later over the earlier.

    An entry that takes the place of another keeps its `when`, unless it has one of its own. A fixed value is
    copied, and takes the place of every entry beneath its path.
    """

    def __init__(self, recipe: "Experiment", *, tell: Tell, effort: Effort) -> None:
        self._recipe, self._effort = recipe, effort
        self._plain = recipe.plain()
        self._tell = tell
        self.notes: dict[Location, str] = {}
        self._where: dict[str, Location | None] = {}
        self._entries: dict[str, Entry | None] = {}

    def add_space(self, section: Mapping[str, Any]) -> None:
        """Searches each path."""
        given = {path: self._search(path, value) for path, value in self._read(section, ("space",))}
        self._check_conditions(given)

    def add_profile(self, section: Mapping[str, Any], name: str) -> None:
        """Searches a path where the profile gives a distribution, and fixes it where it gives a value."""
        before = dict(self._entries)
        read = dict(self._read(section, ("profiles", name)))
        given = {}
        for path in sorted(read, key=depth_then_kind):
            if distribution_key(read[path]) is None:
                self._fix(path, read[path])
                continue
            above = next((fixed for fixed in read if path.startswith(f"{fixed}.")), None)
            if above is None:
                given[path] = self._search(path, read[path])
            else:
                rule = f"lies beneath `{above}`, which this profile sets as a whole"
                self._tell(self._where[path], f"`{path}`: {rule}; set its other fields one by one")
        self._check_conditions(given, beside=before)

    def add_fixed(self, values: Mapping[str, Any]) -> None:
        """Fixes each path, over all else; a path of a mapping's field over the mapping.

        Of an earlier entry's `when` it keeps what says whether there is such a field: a searched `kind`.
        """
        if len(values) > ITEM_LIMIT:
            self._tell(None, f"{len(values)} fields are set, {ITEM_LIMIT} at most; write a profile")
            return
        given = dict(self._read(values, None))
        for path in sorted(given, key=depth_then_kind):
            self._fix(path, given[path])
        for path in given:
            entry = self._entries[path]
            if entry is not None:
                when = {
                    other: wanted
                    for other, wanted in entry.when.items()
                    if other in kinds_above(path) and self._is_searched(other, among=wanted)
                }
                self._entries[path] = entry.model_copy(update={"when": when})

    def parameters(self) -> Parameters:
        """What the entries amount to; tells every rule they break."""
        self._settle_conditions()
        entries, waiting = ordered({path: one for path, one in self._entries.items() if one})
        for path in waiting:
            cycle = f"its `when` waits for itself, by way of {', '.join(waiting)}; break the circle"
            self._tell(self._where[path], f"`{path}`: {cycle}")
        parameters = Parameters(self._recipe, entries)
        unread = [path for path, one in self._entries.items() if one is None]
        self._tell_all(broken_rules(parameters, unread=unread, effort=self._effort))
        for problem in unreachable_paper(parameters):
            location = self._where[problem.path]
            if location and location[0] == "profiles":
                # a profile may leave the paper's setting: that is what it is for
                first = parameters.paper_point()[problem.path]
                self.notes[location] = f"{problem.text}; the first trial has {shown(first)}"
            else:
                remedy = "widen it, so that the paper's configuration can be the first trial"
                self._tell(location, f"{problem.text}; {remedy}")
        return parameters

    def _canonical(self, path: str) -> str:
        field = find(self._plain, type(self._recipe), path)
        return path if field is None else field.path

    def _read(self, section: Mapping[str, Any], place: Location | None) -> Iterator[tuple[str, Any]]:
        """A section by canonical path; tells of two that are the same field."""
        seen: dict[str, str] = {}
        for given, value in section.items():
            path, location = self._canonical(given), None if place is None else (*place, given)
            if path in seen:
                self._tell(location, f"`{given}` is the same field as `{seen[path]}`; remove one")
                continue
            seen[path] = given
            self._where[path] = location
            yield path, value

    def _search(self, path: str, value: Any) -> Distribution | None:
        """Takes up a distribution, and gives it as it was written; None, and it is told, if it is none."""
        before, self._entries[path] = self._entries.get(path), None
        try:
            distribution = _DISTRIBUTION.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            location = self._where[path] or ()
            for problem in problems(error):
                within = ("space", location[-1], *problem["loc"])
                self._tell((*location, *problem["loc"]), broken_key({**problem, "loc": within}))
            return None
        when = {self._canonical(other): values for other, values in distribution.when.items()}
        distribution = distribution.model_copy(update={"when": when})
        conditions = when or (before.when if before else {})
        self._entries[path] = distribution.model_copy(update={"when": conditions})
        return distribution

    def _fix(self, path: str, value: Any) -> None:
        before = self._entries.get(path)
        kept = {other: entry for other, entry in self._entries.items() if not other.startswith(f"{path}.")}
        self._entries = kept
        self._entries[path] = Constant(value=copy.deepcopy(value), when=before.when if before else {})

    def _is_searched(self, path: str, *, among: Sequence[Any]) -> bool:
        entry = self._entries.get(path)
        if entry is None or isinstance(entry, Constant):
            return False
        return any(entry.contains(value) for value in among)

    def _settle_conditions(self) -> None:
        """A `when` that names a field beneath a fixed value finds what that field is then."""
        fixed = {path: entry for path, entry in self._entries.items() if isinstance(entry, Constant)}
        named = {other for entry in self._entries.values() if entry for other in entry.when}
        for path in sorted(named - set(self._entries)):
            above = [other for other in fixed if path.startswith(f"{other}.")]
            if not above:
                continue
            self._effort.spend(PROBLEM_EFFORT)
            recipe, _ = attempt(self._recipe, {other: fixed[other].value for other in above})
            field = None if recipe is None else find(recipe.plain(), type(recipe), path)
            if field is not None:
                owner = max(above, key=len)
                self._entries[path] = Constant(value=field.value, when=fixed[owner].when)
                self._where[path] = self._where[owner]

    def _check_conditions(
        self,
        given: Mapping[str, Distribution | None],
        beside: Mapping[str, Entry | None] = MappingProxyType({}),
    ) -> None:
        read = {path: one for path, one in given.items() if one}
        self._tell_all(unmet_conditions(read, beside={**beside, **given}))

    def _tell_all(self, problems: Iterator[SpaceProblem]) -> None:
        for problem in problems:
            location = self._where.get(problem.path, ("recipe",))
            if location is not None and problem.index is not None:
                location = (*location, "choice", problem.index)
            self._tell(location, problem.text)
