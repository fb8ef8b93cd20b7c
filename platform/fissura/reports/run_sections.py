"""What the report of a study says of its evaluated runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from fissura.reports.figures import Plot


@dataclass(frozen=True, kw_only=True)
class RunSections:
    """`held_out` are the parts of the section about held-out images, `found` is their result in a sentence,
    and `tiles` in large print. `plots` are more sections of plots; `cross_data` is the section about other
    data than the study's own."""

    held_out: Sequence[Markup] = ()
    found: str = ""
    tiles: Sequence[Markup] = ()
    plots: Mapping[str, Sequence[Plot]] = field(default_factory=dict)
    cross_data: Sequence[Markup] = ()
