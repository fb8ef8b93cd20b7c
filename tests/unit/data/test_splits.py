"""Drawn splits: seeded, in whole groups, as near to the wished size as whole groups allow."""

from itertools import combinations
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fissura.data.sample import Sample
from fissura.data.splits import carve, draw

GROUPS = st.dictionaries(
    st.text("abcdef0123456789", min_size=1, max_size=6), st.sampled_from("pqrstuvw"), min_size=1, max_size=40
)


@given(GROUPS, st.integers(0, 45), st.integers(0, 5))
def test_groups_are_drawn_whole(groups: dict[str, str], count: int, seed: int) -> None:
    drawn = draw(groups, count=count, seed=seed, purpose="test")
    assert not {groups[name] for name in drawn} & {groups[name] for name in groups if name not in drawn}


@given(GROUPS, st.integers(1, 45), st.integers(0, 5))
def test_the_size_is_the_nearest_that_whole_groups_allow(
    groups: dict[str, str], count: int, seed: int
) -> None:
    drawn = draw(groups, count=count, seed=seed, purpose="test")
    sizes = [list(groups.values()).count(group) for group in sorted(set(groups.values()))]
    possible = [sum(some) for take in range(1, len(sizes)) for some in combinations(sizes, take)]
    target = min(count, len(groups) - 1)
    if possible:
        assert abs(len(drawn) - target) == min(abs(size - target) for size in possible)
    else:
        assert not drawn


@given(GROUPS, st.integers(1, 20), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_draw_does_not_depend_on_the_order_of_names(
    groups: dict[str, str], count: int, seed: int, random: Random
) -> None:
    items = list(groups.items())
    random.shuffle(items)
    shuffled = draw(dict(items), count=count, seed=seed, purpose="test")
    assert shuffled == draw(groups, count=count, seed=seed, purpose="test")


def test_the_draw_is_the_same_for_ever() -> None:
    names = [f"{number:03d}" for number in range(20)]
    drawn = draw(dict(zip(names, names, strict=True)), count=4, seed=0, purpose="test")
    assert sorted(drawn) == ["006", "013", "014", "016"]


def test_seeds_and_purposes_draw_differently() -> None:
    groups = {f"{number:03d}": f"{number:03d}" for number in range(100)}
    draws = {
        draw(groups, count=20, seed=seed, purpose=purpose) for seed in range(3) for purpose in ("val", "test")
    }
    assert len(draws) == 6


def test_carving_moves_a_share_of_one_split_and_touches_no_other() -> None:
    def sample(number: int, split: str) -> Sample:
        name = f"{split}-{number}"
        return Sample(name, split, f"{split}-{number // 2}", Path(name), Path(name))  # type: ignore[arg-type]

    before = [sample(number, "train") for number in range(20)] + [
        sample(number, "test") for number in range(5)
    ]
    after = carve(before, source="train", target="val", share=0.2, seed=1)
    assert [one.name for one in after] == [one.name for one in before]
    moved = [one for one in after if one.split == "val"]
    assert len(moved) == 4
    assert len({one.group for one in moved}) == 2
    assert [one for one in after if one.split == "test"] == before[20:]
