"""The table "Sizes of the networks" of docs/papers.md: each figure counted, each difference with a reason."""

import re
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fissura.models import AnyModel, HrSegNet, HrSegNetNetwork, ModelSpec, Segmenter

LARGER = ("size=b1", "size=b2")
"""They differ from a smaller one of their family in numbers alone."""
PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


class Row(NamedTuple):
    """A line of the table."""

    network: str
    settings: str
    published_weights: str
    weights: str
    published_operations: str
    operations: str
    reason: str

    @property
    def model(self) -> ModelSpec:
        kind, *settings = self.settings.strip("`").split()
        values: dict[str, Any] = {name: yaml.safe_load(value) for name, _, value in
                                  (setting.partition("=") for setting in settings)}  # fmt: skip
        if "weights" in TypeAdapter(AnyModel).validate_python({"kind": kind}).plain():
            values["weights"] = "none"
        model: ModelSpec = TypeAdapter(AnyModel).validate_python({"kind": kind, **values})
        return model


def rows() -> list[Row]:
    _, _, section = PAGE.read_text().partition("\n## Sizes of the networks\n")
    lines = re.findall(r"^\| (.*) \|$", section.partition("\n## ")[0], flags=re.MULTILINE)
    return [Row(*(cell.strip() for cell in line.split(" |"))) for line in lines[1:]]


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_paper(model: ModelSpec) -> tuple[Segmenter, int]:
    """The network, and its multiply-adds in use, of 256 x 256 pixels."""
    network = model.build().eval()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        network(torch.zeros(1, 3, 256, 256))
    return network, counter.get_total_flops() // 2


def as_published(text: str, found: int) -> bool:
    """Whether a figure, such as `12.49 M`, is what was found, to its last digit."""
    shown = text.removesuffix("†").strip()
    if shown == "none":
        return True
    number, _, unit = shown.partition(" ")
    digits = len(number.partition(".")[2])
    return f"{found / {'': 1, 'M': 1e6, 'G': 1e9}[unit]:.{digits}f}" == number.replace(",", "")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=row.settings.strip("`").replace(" ", "-"),
            marks=[pytest.mark.slow] if any(larger in row.settings for larger in LARGER) else [],
        )
        for row in rows()
    ],
)
def test_a_network_has_the_weights_and_operations_of_the_table(row: Row) -> None:
    network, operations = on_paper(row.model)
    assert (row.weights, row.operations) == (f"{weights(network):,}", f"{operations / 1e9:.2f} G")
    equal = as_published(row.published_weights, weights(network)) and as_published(
        row.published_operations, operations
    )
    assert equal or row.reason, "what differs from what was published has a reason"


def test_every_network_that_learns_has_a_row() -> None:
    learning = {model for model in get_args(get_args(AnyModel)[0]) if model.learns}
    assert {type(row.model) for row in rows()} == learning


@pytest.mark.parametrize(("width", "published"), [(16, 0.22), (32, 0.89), (48, 2.00)])
def test_hrsegnet_saves_by_its_1x1_convolutions_before_the_up_sampling(width: int, published: float) -> None:
    """Of those of the k-th block all but a 4^k-th of their operations; nothing else differs."""
    network, found = on_paper(HrSegNet(width=width))
    assert isinstance(network, HrSegNetNetwork)
    if width == 16:
        assert weights(network) - weights(network.to_sides) == 605_089
    saved = sum(3 * 2**k * width**2 * 64**2 * (1 - 4**-k) for k in (1, 2, 3))
    assert (found + saved) / 1e9 == pytest.approx(published, abs=5e-3)
