"""What every segmentation network is held to: sizes, gradients, seeds, evaluation, and weights in a file."""

import copy
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fissura.models import ModelSpec, Segmenter


class ModelCase:
    """A network by its spec. The parameters whose names begin with `frozen`, if it is given, are not trained.

    The network is built once for all checks.
    """

    def __init__(self, model: ModelSpec, *, frozen: str | None = None) -> None:
        self.model, self.frozen = model, frozen

    def fresh(self, seed: int) -> Segmenter:
        """The network as PyTorch's generator draws it from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model.build()

    @cached_property
    def initial(self) -> dict[str, str]:
        """The bits of each tensor as drawn from the seed 7."""
        return fingerprint(self.fresh(7))

    @cached_property
    def network(self) -> Segmenter:
        """The network of the seed 7 in evaluation mode, its statistics those of images."""
        network = self.fresh(7)
        with torch.no_grad():
            for seed in range(3):
                network(images(64, 64, seed=seed))
        return network.eval()


def images(height: int, width: int, *, seed: int = 0) -> Float[Tensor, "2 3 h w"]:
    """Two drawn images."""
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def fingerprint(network: Segmenter) -> dict[str, str]:
    """A hash of the bits of each tensor."""
    state = network.state_dict()
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()}


def gives_finite_logits_at_the_size_of_the_image(case: ModelCase) -> None:
    """At several multiples of its stride; its head gives the same of its features."""
    network = case.network
    for multiples in ((1, 1), (2, 4), (5, 3)):
        height, width = (network.stride * multiple for multiple in multiples)
        image = images(height, width)
        with torch.no_grad():
            features, logits = network.features(image), network(image)
            by_the_head = network.head(features)
        assert features.shape == (2, network.feature_channels, height, width)
        assert logits.shape == (2, 1, height, width)
        assert torch.isfinite(logits).all(), multiples
        scale = logits.abs().max().item()
        torch.testing.assert_close(logits, by_the_head, rtol=1e-4, atol=1e-5 * (1 + scale))


def trains_every_parameter_that_is_not_frozen(case: ModelCase) -> None:
    """Each has a finite gradient; one that has nothing to learn has none."""
    network = copy.deepcopy(case.network).train()
    if not case.model.learns:
        assert not list(network.parameters())
        return
    image = images(64, 64)
    if network.side_maps:
        features, sides = network.with_side_maps(image)
        maps = [network.head(features), *sides]
    else:
        maps = [network(image)]
    torch.autograd.backward([one.square().sum() for one in maps])
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    unused = [name for name in gradients if case.frozen is not None and name.startswith(case.frozen)]
    assert [name for name, gradient in gradients.items() if gradient is None] == unused
    assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients.values())


def gives_the_side_maps_that_it_names(case: ModelCase) -> None:
    """Finite ones, of sides that divide the image's, beside the features that it gives without them."""
    network, (height, width) = case.network, (case.network.stride * 2, case.network.stride * 4)
    with torch.no_grad():
        features, sides = network.with_side_maps(images(height, width))
        assert torch.equal(features, network.features(images(height, width)))
    assert len(sides) == len(network.side_maps)
    for logits in sides:
        factor = height // logits.shape[-2]
        assert logits.shape == (2, 1, height // factor, width // factor)
        assert height % factor == width % factor == 0
        assert torch.isfinite(logits).all()


def draws_the_same_weights_from_the_same_seed(case: ModelCase) -> None:
    """Bit for bit."""
    assert fingerprint(case.fresh(7)) == case.initial


def draws_other_weights_from_another_seed(case: ModelCase) -> None:
    """In every layer with weights."""
    network = case.fresh(8)
    again = fingerprint(network)
    layers = [
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    assert [name for name in layers if again[name] == case.initial[name]] == []


def evaluates_each_image_by_itself(case: ModelCase) -> None:
    """Twice alike, and alone as in a batch."""
    network, pair = case.network, images(64, 64)
    with torch.no_grad():
        together = network(pair)
        assert torch.equal(network(pair), together)
        alone = torch.cat([network(pair[index : index + 1]) for index in range(len(pair))])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * together.abs().max().item())


def keeps_its_weights_in_a_file(case: ModelCase) -> None:
    """`weights: PATH` gives the same network."""
    network, image = case.network, images(64, 64)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(network.state_dict(), path)
        twin = case.model.model_copy(update={"weights": str(path)}).build().eval()
        assert load_file(path).keys() == twin.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(twin(image), network(image))


def survives_its_plain_form(case: ModelCase) -> None:
    """The spec comes back from JSON types."""
    assert type(case.model).load(case.model.plain(), source="its plain form") == case.model


MODEL_CHECKS: tuple[Callable[[ModelCase], None], ...] = (
    gives_finite_logits_at_the_size_of_the_image,
    trains_every_parameter_that_is_not_frozen,
    gives_the_side_maps_that_it_names,
    draws_the_same_weights_from_the_same_seed,
    draws_other_weights_from_another_seed,
    evaluates_each_image_by_itself,
    keeps_its_weights_in_a_file,
    survives_its_plain_form,
)


def check_model(case: ModelCase) -> None:
    """Holds a network to all checks.

    Raises:
        AssertionError: of the first that does not hold.
    """
    for check in MODEL_CHECKS:
        check(case)
