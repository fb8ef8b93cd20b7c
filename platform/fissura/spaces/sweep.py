"""A one-at-a-time sweep: from the paper's own point, each parameter alone takes its other values."""

import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any

from pydantic import Field

from fissura.core.errors import SpaceError, SpecError
from fissura.core.rules import shown
from fissura.core.spec import Spec
from fissura.core.text import nearest
from fissura.spaces.compile import Parameters
from fissura.spaces.distributions import Scalar
from fissura.spaces.fields import resolve

MOST_VALUES = 1_000


class Sweep(Spec):
    """A sweep as it was asked for, and the trials that it adds to its study.

    `values` are taken of each range; `over` are the parameters, none meaning all. A point is a parameter's
    path and its value, beside which all is as in the paper's own point.
    """

    values: int = Field(ge=2, le=MOST_VALUES)
    over: tuple[str, ...] = ()
    points: tuple[tuple[str, Scalar], ...] = ()

    def words(self) -> list[str]:
        """The words of a command line that ask for it."""
        return ["--sweep", str(self.values), *(word for path in self.over for word in ("--over", path))]


def plan_sweep(
    space: Parameters, *, values: int, over: Sequence[str], content: str, taken: Container[str]
) -> tuple[Sweep, str]:
    """A sweep of `space`, and a line to show about it.

    The paper's own value is not among the points (trial 0 has it), nor is a point whose run, on the data of
    digest `content`, is `taken`.

    Raises:
        SpaceError: the number of values is out of range, or a path of `over` cannot be swept.
        SpecError: a point breaks a rule of the recipe.
    """
    if not 2 <= values <= MOST_VALUES:
        raise SpaceError(f"--sweep {values}: a range takes 2 to {MOST_VALUES} values")
    paper = space.paper_point()
    chosen = tuple(dict.fromkeys(_swept(space, over))) or tuple(paper)
    points = [
        (path, value)
        for path in chosen
        for value in space.distributions[path].spread(values)
        if not _alike(value, paper[path]) and run_of(space, path, value, content=content) not in taken
    ]
    counts = Counter(path for path, _ in points)
    parts = ", ".join(f"{path} {count}" for path, count in counts.items())
    several = "trial" if len(points) == 1 else "trials"
    note = (
        f"sweep: {len(points)} {several}, one parameter at a time, each run to its end: {parts}"
        if points
        else "sweep: adds no trial: the study has each of its points"
    )
    return Sweep(values=values, over=chosen if over else (), points=tuple(points)), note


def run_of(space: Parameters, path: str, value: Any, *, content: str) -> str:
    """The run of a sweep's point.

    Raises:
        SpecError: the point breaks a rule of the recipe.
    """
    return space.recipe_for(space.completed({path: value})).run_id(content)


def _swept(space: Parameters, over: Sequence[str]) -> Iterator[str]:
    """The canonical paths of `over`.

    Raises:
        SpaceError: one is not searched, or not at the paper's point.
    """
    paper, problems = space.paper_point(), []
    for given in over:
        try:
            path = resolve(space.recipe.plain(), type(space.recipe), given).path
        except SpecError:
            path = given
        if path in paper:
            yield path
        elif path in space.distributions:
            when = space.distributions[path].when
            wanted = " and ".join(
                f"`{other}` is {' or '.join(map(shown, among))}" for other, among in when.items()
            )
            problems.append(
                f"--over {given}: it is searched only where {wanted}, which the paper's own setting is not"
            )
        else:
            hint = nearest(path, paper)
            problems.append(
                f"--over {given}: is not searched{hint}; searched are {', '.join(paper) or 'none'}"
            )
    if problems:
        raise SpaceError(*problems)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, up to the rounding of numbers."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    if numbers:
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return type(one) is type(other) and bool(one == other)
