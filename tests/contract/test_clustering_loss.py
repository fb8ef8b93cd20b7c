"""The clustering terms equal their forms over all pairs, value and gradient, without holding those pairs."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from fissura.losses import (
    BCE,
    Clustering,
    clustering_bound,
    clustering_exact,
    nearest_neighbour_contrast,
    nearest_neighbours,
)
from fissura.losses.cluster_terms import centred_bound, centred_exact

TERMS = ("bound", "exact", "nnclr")
SIZES = (1, 2, 5, 20, 21, 22, 23, 150)


def dense_term(name: str, probability: Tensor, neighbours: Tensor) -> Tensor:
    """Eq. 12 or 13, and 15, over an |S| x |S| matrix."""
    size, close = neighbours.shape
    p = torch.stack([1 - probability, probability], dim=1)
    product = p @ p.T
    near = torch.zeros(size, size, dtype=torch.bool).scatter(1, neighbours, True)
    far = ~near & ~torch.eye(size, dtype=torch.bool)
    attracted, repelled = (product * near).sum(1), (product * far).sum(1)
    others = size - close - 1
    if name == "exact":
        psi = -attracted + repelled + (close - others) * torch.logsumexp(product, dim=1)
    else:
        psi = -attracted + close / max(1, others) * repelled + (close - others) * math.log(size)
    return psi.mean()


def dense_contrast(features: Tensor, neighbours: Tensor, *, temperature: float) -> Tensor:
    z = normalize(features, dim=1)
    similarity = z.detach()[neighbours[:, 0]] @ z.T / temperature
    return -(similarity.diagonal() - torch.logsumexp(similarity, dim=1)).mean()


def value_and_gradient(term: Any, tensor: Tensor, **parameters: object) -> tuple[Tensor, Tensor]:
    leaf = tensor.clone().requires_grad_()
    cost = term(leaf, **parameters)
    (gradient,) = torch.autograd.grad(cost, leaf)
    return cost.detach(), gradient


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, Tensor) and not func.is_view:
                self.elements = max(self.elements, one.numel())
        return made


integers = st.integers(-2, 2).map(float)
features_of_some = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=integers
)


class TestNearestNeighbours:
    @given(features=features_of_some, k=st.integers(1, 70), pairs=st.sampled_from([1, 100, 2**22]))
    def test_none_of_the_others_is_nearer(self, features: np.ndarray, k: int, pairs: int) -> None:
        found = nearest_neighbours(torch.from_numpy(features), k=k, pairs=pairs).numpy()
        length = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / np.where(length > 0, length, 1)
        similarity = (unit @ unit.T).astype(np.float64)
        size = len(features)
        assert found.shape == (size, min(k, size - 1))
        for m in range(size):
            others = np.delete(similarity[m], m)
            assert m not in found[m]
            assert len(set(found[m])) == len(found[m])
            nearest = np.sort(others)[::-1][: found.shape[1]]
            np.testing.assert_allclose(similarity[m, found[m]], nearest, atol=1e-6)

    @pytest.mark.parametrize("k", [1, 20, 60, 400])
    def test_they_are_the_same_whatever_the_chunk(self, k: int, rng: np.random.Generator) -> None:
        features = rng.normal(size=(1001, 8))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        expected = np.argsort(-(unit @ unit.T - 3 * np.eye(1001)), axis=1)[:, :k]
        for pairs in (1001 * 7, 2**22):
            found = nearest_neighbours(torch.from_numpy(features), k=k, pairs=pairs).numpy()
            # float32 may swap two that are equally near to 7 digits
            assert (np.sort(found, axis=1) == np.sort(expected, axis=1)).mean() > 0.999

    def test_lengths_do_not_count(self, rng: np.random.Generator) -> None:
        features = torch.from_numpy(rng.normal(size=(50, 3)))
        longer = features * torch.from_numpy(rng.uniform(0.01, 100, size=(50, 1)))
        assert torch.equal(nearest_neighbours(features, k=5), nearest_neighbours(longer, k=5))

    def test_an_equal_is_a_neighbour_and_oneself_is_not(self) -> None:
        found = nearest_neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]), k=1)
        assert found.tolist() == [[2], [3], [0], [1]]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_similarities_are_float32_under_autocast(self, dtype: torch.dtype) -> None:
        features = torch.randn(300, 16).to(dtype)
        expected = nearest_neighbours(features.float(), k=5)
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(nearest_neighbours(features, k=5), expected)


@pytest.mark.parametrize("size", SIZES)
class TestTermsOfOneImage:
    @pytest.mark.parametrize("name", ["bound", "exact"])
    def test_the_term_is_its_form_over_all_pairs(
        self, name: str, size: int, rng: np.random.Generator
    ) -> None:
        neighbours = nearest_neighbours(torch.from_numpy(rng.normal(size=(size, 4))), k=20)
        p = torch.from_numpy(rng.random(size) ** 3)
        term, centred = {
            "bound": (clustering_bound, centred_bound),
            "exact": (clustering_exact, centred_exact),
        }[name]
        cost, gradient = value_and_gradient(term, p, neighbours=neighbours)
        dense, expected = value_and_gradient(lambda leaf: dense_term(name, leaf, neighbours), p)
        torch.testing.assert_close(cost, dense, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
        assert torch.autograd.gradcheck(lambda leaf: term(leaf, neighbours=neighbours), (p.requires_grad_(),))
        close = neighbours.shape[1]
        constant = (2 * close + 1 - size) * math.log(size)
        torch.testing.assert_close(centred(p, neighbours=neighbours), cost - constant, rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("rows", [1, 7, 1000])
    def test_the_contrast_is_its_form_over_all_pairs(
        self, rows: int, size: int, rng: np.random.Generator
    ) -> None:
        features = torch.from_numpy(rng.normal(size=(size, 4)))
        neighbours = nearest_neighbours(features, k=1)
        cost, gradient = value_and_gradient(
            nearest_neighbour_contrast, features, neighbours=neighbours, temperature=0.3, pairs=rows * size
        )
        if size == 1:
            assert cost == 0
            assert torch.all(gradient == 0)
            return
        dense, expected = value_and_gradient(
            lambda leaf: dense_contrast(leaf, neighbours, temperature=0.3), features
        )
        torch.testing.assert_close(cost, dense, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("term", [clustering_bound, clustering_exact])
def test_the_extremes_of_probability_are_within_the_series(term: Any, p: float) -> None:
    neighbours = nearest_neighbours(torch.randn(40, 3), k=5)
    mixed = torch.where(torch.arange(40) < 10, p, 1.0).double()
    name = "bound" if term is clustering_bound else "exact"
    torch.testing.assert_close(
        term(mixed, neighbours=neighbours), dense_term(name, mixed, neighbours), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("term", [clustering_bound, clustering_exact])
def test_no_pixel_costs_nothing(term: Any) -> None:
    assert term(torch.empty(0), neighbours=torch.empty(0, 0, dtype=torch.int64)) == 0


@pytest.mark.parametrize("name", TERMS)
def test_no_matrix_over_all_pairs_is_made_forwards_or_backwards(name: str) -> None:
    size, pairs, kept = 3000, 2**15, 3000 * 20 * 8
    features, p = torch.randn(size, 8, requires_grad=True), torch.rand(size, requires_grad=True)
    with Largest() as largest:
        if name == "nnclr":
            nearest = nearest_neighbours(features.detach(), k=1, pairs=pairs)
            nearest_neighbour_contrast(features, neighbours=nearest, temperature=0.1, pairs=pairs).backward()
        else:
            neighbours = nearest_neighbours(features.detach(), k=20, pairs=pairs)
            term = centred_bound if name == "bound" else centred_exact
            term(p, neighbours=neighbours).backward()
    assert size < largest.elements <= kept < size * size / 10


def drawn(*, size: int = 8, images: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    shape = (images, 1, size, size)
    return {
        "logits": torch.randn(shape).to(dtype),
        "features": torch.randn(images, 5, size, size).to(dtype),
        "target": (torch.rand(shape) < 0.3).float(),
        "valid": (torch.rand(shape) < 0.9).float(),
        "ambiguous": (torch.rand(shape) < 0.4).to(torch.uint8),
    }


@pytest.mark.parametrize("name", TERMS)
class TestTheWholeLoss:
    def test_without_an_ambiguous_pixel_it_is_the_cross_entropy(self, name: str) -> None:
        batch = drawn()
        batch["ambiguous"].zero_()
        plain = BCE().build()(batch["logits"], batch["target"], batch["valid"])
        assert Clustering(term=name).build()(**batch).item() == plain.item()

    def test_it_is_the_cross_entropy_outside_plus_beta_times_the_mean_over_images(self, name: str) -> None:
        batch = drawn()
        batch["ambiguous"][1] = 0
        outside = BCE().build()(
            batch["logits"], batch["target"], batch["valid"] * (1 - batch["ambiguous"].float())
        )
        terms = []
        for image in (0, 2):
            chosen = ((batch["ambiguous"] == 1) & (batch["valid"] == 1))[image, 0]
            features = batch["features"][image][:, chosen].T
            if name == "nnclr":
                nearest = nearest_neighbours(features, k=1)
                terms.append(nearest_neighbour_contrast(features, neighbours=nearest, temperature=0.1))
            else:
                term = centred_bound if name == "bound" else centred_exact
                p = torch.sigmoid(batch["logits"][image, 0][chosen])
                terms.append(term(p, neighbours=nearest_neighbours(features, k=4)))
        cost = Clustering(term=name, k=4, beta=0.7).build()(**batch)
        assert cost.item() == pytest.approx((outside + 0.7 * sum(terms) / 2).item(), rel=1e-6)

    def test_labels_inside_the_region_do_not_count(self, name: str) -> None:
        batch, module = drawn(), Clustering(term=name).build()
        flipped = torch.where(batch["ambiguous"] == 1, 1 - batch["target"], batch["target"])
        assert module(**batch).item() == module(**{**batch, "target": flipped}).item()

    def test_only_the_contrast_pulls_at_features_and_only_at_ambiguous_valid_ones(self, name: str) -> None:
        batch = drawn()
        batch["features"] = torch.where(batch["valid"] == 1, batch["features"], torch.nan).requires_grad_()
        batch["logits"].requires_grad_()
        Clustering(term=name).build()(**batch).backward()
        pulled = batch["features"].grad
        if name == "nnclr":
            assert pulled is not None
            chosen = ((batch["ambiguous"] == 1) & (batch["valid"] == 1)).expand_as(pulled)
            assert torch.all(pulled[~chosen] == 0)
            assert torch.all(pulled[chosen] != 0)
        else:
            assert pulled is None

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("features", ["as drawn", "all equal", "all zero"])
    @pytest.mark.parametrize("count", [0, 1, 2, 5, 64])
    def test_it_is_finite_for_any_region_and_features(
        self, name: str, dtype: torch.dtype, features: str, count: int
    ) -> None:
        batch = drawn(images=1, dtype=dtype)
        batch["valid"].fill_(1)
        batch["ambiguous"] = (torch.arange(64) < count).to(torch.uint8).view(1, 1, 8, 8)
        if features != "as drawn":
            batch["features"] = torch.full_like(batch["features"], 1.0 if features == "all equal" else 0.0)
        batch["logits"] = (50 * batch["logits"].sign()).requires_grad_()
        batch["features"].requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cost = Clustering(term=name).build()(**batch)
        cost.backward()
        assert cost.dtype == torch.float32
        assert torch.isfinite(cost)
        assert torch.isfinite(batch["logits"].grad).all()
        assert batch["features"].grad is None or torch.isfinite(batch["features"].grad).all()


@pytest.mark.parametrize("name", ["bound", "exact"])
def test_following_it_neighbours_come_to_agree_and_the_others_to_differ(name: str) -> None:
    cluster = torch.arange(42) % 2
    features = torch.eye(2)[cluster].T + 0.1 * torch.randn(2, 42)
    logits = (0.1 * torch.randn(42)).requires_grad_()
    every = torch.ones(1, 1, 1, 42)
    module = Clustering(term=name, k=20, beta=1.0).build()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        module(logits.view_as(every), features.view(1, 2, 1, 42), 0 * every, every, every).backward()
        optimizer.step()
    sides = [logits[cluster == number].detach().sign().mean().item() for number in (0, 1)]
    assert sorted(sides) == [-1, 1]


@pytest.mark.parametrize(
    "wrong", [{"gamma": 0}, {"k": 0}, {"k": 4097}, {"beta": -1}, {"temperature": 0}, {"term": "ci"}]
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Clustering(**wrong)
