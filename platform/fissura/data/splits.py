"""Draws splits if none is official: seeded, whole groups at a time, equal on every machine."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fissura.core.seeding import derive
from fissura.data.sample import Sample, Split


def draw(groups: Mapping[str, str], *, count: int, seed: int, purpose: str) -> frozenset[str]:
    """Draws `count` names out of `groups` (name -> its group), or as close as whole groups allow (fewer on a
    tie).

    The draw depends only on the names, the seed and the `purpose` (such as "test"). Of two or more groups at
    least one is drawn and one is left; of a single group nothing is drawn.
    """
    sizes = Counter(groups.values())
    order = sorted(sizes, key=lambda group: (derive(seed, "split", purpose, group), group))
    if len(order) < 2:
        return frozenset()
    target = min(max(count, 1), len(groups) - 1)

    # reachable[i] has bit s set if some of the groups order[i:] hold s names together
    limit = (1 << (target + max(sizes.values()) + 1)) - 1
    reachable = [1]
    for group in reversed(order):
        reachable.append((reachable[-1] | reachable[-1] << sizes[group]) & limit)
    reachable.reverse()
    sums = [s for s in range(1, min(limit.bit_length(), len(groups))) if reachable[0] >> s & 1]
    left = min(sums, key=lambda s: (abs(s - target), s))

    drawn = set()
    for index, group in enumerate(order):
        if sizes[group] <= left and reachable[index + 1] >> (left - sizes[group]) & 1:
            drawn.add(group)
            left -= sizes[group]
    return frozenset(name for name, group in groups.items() if group in drawn)


def carve(
    samples: Iterable[Sample],
    *,
    source: Split,
    target: Split,
    seed: int,
    share: float | None = None,
    count: int = 0,
) -> list[Sample]:
    """Moves a part of the split `source` into `target`: `share` (0..1) of it, or `count` samples. Groups
    move whole.
    """
    samples = list(samples)
    groups = {sample.name: sample.group for sample in samples if sample.split == source}
    if share is not None:
        count = round(share * len(groups))
    drawn = draw(groups, count=count, seed=seed, purpose=target)
    return [replace(sample, split=target) if sample.name in drawn else sample for sample in samples]
