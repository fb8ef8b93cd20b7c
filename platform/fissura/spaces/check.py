"""The rules of a search space: paths exist, values build recipes, the paper's point is reachable."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fissura.core.errors import SpaceError, SpecError
from fissura.core.rules import shown
from fissura.core.text import nearest
from fissura.spaces.compile import Distribution, Entry, Parameters, Point
from fissura.spaces.distributions import Choice, Constant, among, same
from fissura.spaces.fields import ABSENT, Plain, assign, depth_then_kind, find, is_kind, kinds_above, resolve

CONTEXT_LIMIT = 512
EFFORT_LIMIT = 7_500
PROBLEM_EFFORT = 100  # steps that a problem costs, with the search for a near name


class TooMuchToCheck(SpaceError):
    """A search space has more settings to check than can be checked in a second."""


class Effort:
    """The steps that the checks of one file may take, in all its profiles together: a parameter that is put
    into a recipe is one."""

    def __init__(self, limit: int = EFFORT_LIMIT) -> None:
        self._limit, self._left = limit, limit

    def spend(self, steps: int) -> None:
        """Takes so many steps.

        Raises:
            TooMuchToCheck: there are not so many left.
        """
        self._left -= steps
        if self._left < 0:
            raise TooMuchToCheck(
                "there is too much to check: the values of all parameters, times those that their `when` and"
                f" their kinds allow, times parameters and profiles, are more than {self._limit:,}; search"
                " fewer values, or use ranges"
            )


@dataclass(frozen=True)
class SpaceProblem:
    """A broken rule: the path that brought it, the item of its choice (None: not one item), the sentence."""

    path: str
    index: int | None
    text: str


def broken_rules(parameters: Parameters, *, unread: Iterable[str], effort: Effort) -> Iterator[SpaceProblem]:
    """Every problem of the parameters, whose conditions are sound; of `unread` paths, whether they exist."""
    names = set[str]()
    for path in (*parameters.entries, *unread):
        for problem in _missing_path(parameters, path, effort):
            names.add(path)
            yield problem
    kept = {path: entry for path, entry in parameters.entries.items() if path not in names}
    parameters = dataclasses.replace(parameters, entries=kept)
    recipe, faults = parameters.attempt(parameters.paper_point())
    if recipe is None:
        for fault in faults:
            owners = [path for path in kept if f"{fault.path}.".startswith(f"{path}.")]
            yield SpaceProblem(max(owners, key=len, default=""), None, fault.text)
        return
    size = sum(map(_size, kept.values()))
    for path, entry in kept.items():
        contexts = [point for point, _ in _contexts(parameters, path, effort)]
        for index, value in enumerate(entry.corners()):
            effort.spend(size * len(contexts))
            refusals = (_refusal(parameters, point, path, value) for point in contexts)
            sentence = next(filter(None, refusals), None)
            if sentence:
                yield SpaceProblem(path, index if isinstance(entry, Choice) else None, sentence)
                if not isinstance(entry, Choice):
                    break  # of a range, the first only


def unreachable_paper(parameters: Parameters) -> Iterator[SpaceProblem]:
    """The recipe's own values that no trial could get; of a kind that is not its own it has none."""
    left: set[str] = set()
    for path, own, value in parameters.walk({}):
        if own is ABSENT or same(own, value):
            continue
        if is_kind(path):
            left.add(path)
        entry = parameters.entries[path]
        if not isinstance(entry, Constant) and not left.intersection(kinds_above(path)):
            yield SpaceProblem(
                path, None, f"`{path}`: the recipe's own value {shown(own)} is not among {entry}"
            )


def unmet_conditions(
    distributions: Mapping[str, Distribution], *, beside: Mapping[str, Entry | None]
) -> Iterator[SpaceProblem]:
    """Conditions on a path that is none of `beside`, or on a value that it cannot take."""
    for path, distribution in distributions.items():
        for other, values in distribution.when.items():
            if other not in beside:
                hint = nearest(other, [known for known in beside if known != path])
                text = f"`{path}`: `when` names `{other}`, which this space does not search{hint}"
                yield SpaceProblem(path, None, text)
            elif known := beside[other]:
                for value in values:
                    if not known.contains(value):
                        rule = f"`when` asks for `{other}` = {shown(value)}, which is not among {known}"
                        yield SpaceProblem(path, None, f"`{path}`: {rule}")


def ordered(entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The entries in the order of `Parameters`, and the paths that wait for one another."""
    done: dict[str, Entry] = {}
    waiting = {path: entries[path] for path in sorted(entries, key=depth_then_kind)}
    while waiting:
        ready = [path for path, entry in waiting.items() if not any(other in waiting for other in entry.when)]
        if not ready:
            return done, list(waiting)
        done[ready[0]] = waiting.pop(ready[0])
    return done, []


def _size(entry: Entry) -> int:
    """The steps that it takes to put an entry into a recipe: one, and more where much is set or asked for."""

    def nodes(value: Any) -> int:
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(nodes, items))

    return sum(map(len, entry.when.values())) // 10 + nodes(entry.value if isinstance(entry, Constant) else 0)


def _contexts(parameters: Parameters, path: str, effort: Effort) -> Iterator[tuple[Point, Plain]]:
    """The ways to set what decides whether `path` is a field and is asked for: kinds above, conditions.

    With each comes the plain recipe in which to look for `path`.
    """
    entries = parameters.entries
    wanted = entries[path].when if path in entries else {}
    relevant: set[str] = set()
    queue = [*kinds_above(path), *wanted]
    while queue:
        other = queue.pop()
        if other in entries and other not in relevant and other != path:
            relevant.add(other)
            queue += [*kinds_above(other), *entries[other].when]
    names = [other for other in entries if other in relevant]

    def extend(point: Point, left: list[str]) -> Iterator[Point]:
        effort.spend(1)
        if not left:
            if path not in entries or parameters.active(path, point):
                yield point
        elif not parameters.active(left[0], point):
            yield from extend(point, left[1:])
        else:
            entry = entries[left[0]]
            values = entry.corners() if isinstance(entry, Choice) else entry.corners()[:1]
            for value in wanted.get(left[0], values):
                if entry.contains(value):
                    yield from extend({**point, left[0]: value}, left[1:])

    for point in itertools.islice(extend({}, names), CONTEXT_LIMIT):
        # a kind that does not exist is told where it is given
        with contextlib.suppress(SpecError):
            yield point, _plain(parameters, point, path)


def _plain(parameters: Parameters, context: Point, path: str) -> Plain:
    """The plain recipe with the kinds of a context, and with what else is set above `path`.

    Raises:
        SpecError: one of them does not exist.
    """
    plain = parameters.recipe.plain()
    for other, entry in parameters.entries.items():
        value = entry.value if isinstance(entry, Constant) else context.get(other, ABSENT)
        above = other in kinds_above(path) or path.startswith(f"{other}.")
        if above and value is not ABSENT and parameters.active(other, context):
            assign(plain, other, value, model_type=type(parameters.recipe))
    return plain


def _missing_path(parameters: Parameters, path: str, effort: Effort) -> Iterator[SpaceProblem]:
    """A path that leads nowhere, at all or under some of the kinds that the space allows."""
    missing: list[tuple[Point, Plain]] = []
    reached: list[Point] = []
    for context, plain in _contexts(parameters, path, effort):
        if find(plain, type(parameters.recipe), path) is None:
            missing.append((context, plain))
        else:
            reached.append(context)
    if missing and not reached:
        effort.spend(PROBLEM_EFFORT)
        try:
            resolve(missing[0][1], type(parameters.recipe), path)
        except SpecError as error:
            yield SpaceProblem(path, None, str(error))
    elif missing:
        context, _ = missing[0]
        kind = next(
            path_above
            for path_above in reversed(list(context))
            if any(
                not among(context[path_above], [other[path_above]])
                for other in reached
                if path_above in other
            )
        )
        fits = ", ".join(dict.fromkeys(str(other[kind]) for other in reached if kind in other))
        constant = isinstance(parameters.entries.get(path), Constant)
        remedy = f"set `{kind}` too" if constant else f"add `when: {{{kind}: [{fits}]}}`"
        yield SpaceProblem(
            path,
            None,
            f"`{path}` is not a field of recipe `{parameters.recipe.name}` "
            f"while `{kind}` is {context[kind]}; {remedy}",
        )


def _refusal(parameters: Parameters, context: Point, path: str, value: Any) -> str | None:
    _, faults = parameters.attempt(parameters.completed({**context, path: value}))
    for fault in faults:
        if fault.path == path:
            return fault.text
        # another parameter's value is told by that parameter
        if fault.path not in parameters.entries:
            return f"{fault.text} (with `{path}` = {shown(value)})"
    return None
