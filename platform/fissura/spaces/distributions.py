"""What a search may try at one path: a choice of values, or a range of whole or real numbers.

In YAML: `{choice: [...]}`, `{int: [low, high], log: true}`, `{float: [low, high], step: 0.1}`, each with an
optional `when: {other.path: [values]}`. Optuna is only called here, through the trial; it is not imported.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import ConfigDict, Discriminator, Field, PlainValidator, Tag, field_validator, model_validator

from fissura.core.rules import shown
from fissura.core.spec import Spec

if TYPE_CHECKING:
    import optuna


def _scalar(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        raise ValueError(
            f"{shown(value)} is neither text, nor a number, true, false or null; "
            "search its parts, each by its own path"
        )
    return value


Scalar = Annotated[str | int | float | bool | None, PlainValidator(_scalar)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]


def same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1, and 1 from the text `1`."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def among(value: Any, values: Sequence[Any]) -> bool:
    """Whether `value` is the `same` as one of `values`."""
    return any(same(value, known) for known in values)


class _Conditional(Spec):
    """The parameter is only asked for while each path of `when` has one of its values."""

    model_config = ConfigDict(serialize_by_alias=True)

    when: dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]] = Field({})


class Choice(_Conditional):
    """One of a few values: text, numbers, true/false or null."""

    values: Annotated[tuple[Scalar, ...], Field(alias="choice", min_length=1)]

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        seen = set[tuple[bool, Scalar]]()
        for value in values:
            if (isinstance(value, bool), value) in seen:  # which are the `same`
                raise ValueError(f"{shown(value)} is given twice; remove one")
            seen.add((isinstance(value, bool), value))
        sorts = {
            "true/false" if isinstance(value, bool) else "text" if isinstance(value, str) else "numbers"
            for value in values
            if value is not None
        }
        if len(sorts) > 1:
            raise ValueError(
                f"mixes {' and '.join(sorted(sorts))}; use one type (quote numbers to mean text)"
            )
        return values

    def contains(self, value: Any) -> bool:
        """Whether a trial could get `value`."""
        return among(value, self.values)

    def corners(self) -> list[Scalar]:
        """Values that together show whether every value is valid: all of them."""
        return list(self.values)

    def spread(self, _: int) -> list[Scalar]:
        """The values of a sweep: all of them."""
        return list(self.values)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Any:
        """A value for this trial."""
        return trial.suggest_categorical(name, list(self.values))

    def __str__(self) -> str:
        return ", ".join(shown(value) for value in self.values)


class IntRange(_Conditional):
    """Whole numbers from `low` to `high`, both included."""

    bounds: Annotated[tuple[Whole, Whole], Field(alias="int")]
    log: bool = False
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        _check_range(*self.bounds, log=self.log, step=None if self.step == 1 else self.step)
        return self

    @property
    def high(self) -> int:
        """The highest value on the grid."""
        low, high = self.bounds
        return low + (high - low) // self.step * self.step

    def contains(self, value: Any) -> bool:
        """Whether a trial could get `value`."""
        low = self.bounds[0]
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and low <= value <= self.high and (value - low) % self.step == 0

    def corners(self) -> list[int]:
        """Values that together show whether every value is valid: both ends, and the low end's neighbour."""
        low = self.bounds[0]
        return sorted({low, low + self.step, self.high})

    def spread(self, count: int) -> list[int]:
        """The values of a sweep: at most `count` from end to end, evenly apart (if `log`, by ratio)."""
        low, step = self.bounds[0], self.step
        values = _spaced(low, self.high, count, log=self.log)
        return sorted({low + round((value - low) / step) * step for value in values})

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> int:
        """A value for this trial."""
        return trial.suggest_int(name, self.bounds[0], self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        return f"{self.bounds[0]} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


class FloatRange(_Conditional):
    """Real numbers from `low` to `high`, both included, on a grid if there is a `step`."""

    bounds: Annotated[tuple[float, float], Field(alias="float")]
    log: bool = False
    step: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        _check_range(*self.bounds, log=self.log, step=self.step)
        return self

    @property
    def high(self) -> float:
        """The highest value, on the grid if there is one."""
        if self.step is None:
            return self.bounds[1]
        # decimal, as Optuna counts: in binary, 0.3 is not three times 0.1
        low, high, step = (Decimal(str(number)) for number in (*self.bounds, self.step))
        return float(low + (high - low) // step * step)

    def contains(self, value: Any) -> bool:
        """Whether a trial could get `value`."""
        low = self.bounds[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - low) / self.step
        return abs(steps - round(steps)) < 1e-8

    def corners(self) -> list[float]:
        """Values that together show whether every value is valid: both ends, and one between."""
        low, high = self.bounds[0], self.high
        return [low, low + (self.step or (high - low) / math.pi), high]

    def spread(self, count: int) -> list[float]:
        """The values of a sweep: at most `count` from end to end, evenly apart (if `log`, by ratio)."""
        low, high = self.bounds[0], self.high
        values = _spaced(low, high, count, log=self.log)
        if self.step is not None:
            first, step = Decimal(str(low)), Decimal(str(self.step))
            return sorted({float(first + round((value - low) / self.step) * step) for value in values})
        # four digits are enough to type and to read, unless they make two values one
        brief = [min(max(float(f"{value:.4g}"), low), high) for value in values]
        return brief if len(set(brief)) == count else values

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> float:
        """A value for this trial."""
        return trial.suggest_float(name, self.bounds[0], self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        return f"{self.bounds[0]:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")


class Constant(_Conditional):
    """One value of any plain type: nothing is searched."""

    value: Any

    def contains(self, value: Any) -> bool:
        """Whether `value` is the one."""
        return same(value, self.value)

    def corners(self) -> list[Any]:
        """The one value."""
        return [self.value]

    def suggest(self, _: "optuna.trial.BaseTrial", name: str) -> Any:
        """The one value; the trial is not asked."""
        return self.value

    def __str__(self) -> str:
        return shown(self.value)


def _spaced(low: float, high: float, count: int, *, log: bool) -> list[float]:
    """`count` values from `low` to `high`, both exactly among them."""
    shares = [index / (count - 1) for index in range(1, count - 1)]
    ratio = high / low if log else 0.0
    inner = [low * ratio**share if log else low + (high - low) * share for share in shares]
    return [low, *inner, high]


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError(f"low {low:g} must be below high {high:g}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range needs a low above 0 (got {low:g}); raise it or drop `log`")
    if log and step is not None:
        raise ValueError("a range has either `log` or `step`; drop one")
    if step is not None and step > high - low:
        raise ValueError(f"step {step:g} is longer than the range from {low:g} to {high:g}; shorten it")


KEYS = ("choice", "int", "float")
FORM = "a parameter is {choice: [...]}, {int: [low, high]} or {float: [low, high]}"


def distribution_key(plain: Any) -> str | None:
    """Which of `choice`, `int` and `float` a plain parameter has; None if none or several."""
    if not isinstance(plain, dict):
        plain = plain.model_dump() if isinstance(plain, Spec) else {}
    keys = [key for key in KEYS if key in plain]
    return keys[0] if len(keys) == 1 else None


AnyDistribution = Annotated[
    Annotated[Choice, Tag("choice")] | Annotated[IntRange, Tag("int")] | Annotated[FloatRange, Tag("float")],
    Discriminator(distribution_key, custom_error_type="no_distribution", custom_error_message=FORM),
]
