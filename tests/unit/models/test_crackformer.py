"""CrackFormer-II (Liu et al., TITS 2023): attention, side maps and their losses."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_unpool2d

from fissura.losses import BalancedBCE
from fissura.models import CrackFormer, CrackFormerNetwork
from fissura.models.blocks import max_pool_placed, max_unpool
from fissura.models.crackformer import LambdaAttention
from fissura.segmentation.objective import PhaseObjective


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> CrackFormerNetwork:
    torch.manual_seed(0)
    return CrackFormer(width=16).build().eval()


def test_attention_is_its_formula_pixel_by_pixel() -> None:
    attention, maps = LambdaAttention(16), drawn(1, 16, 5, 4)
    query, key, value = (layer(maps)[0] for layer in (attention.query, attention.key, attention.value))
    share = key.flatten(1).exp() / key.flatten(1).exp().sum(dim=1, keepdim=True)
    padded = nn.functional.pad(value, (3, 3, 3, 3))
    expected = torch.zeros(4, 4, 5, 4)  # heads, values
    for row in range(5):
        for column in range(4):
            window = padded[:, row : row + 7, column : column + 7]
            here = torch.einsum("kij,vij->kv", attention.positions[:, 0], window)
            function = torch.einsum("kn,vn->kv", share, value.flatten(1)) + here
            for head in range(4):
                expected[head, :, row, column] = query[16 * head : 16 * head + 16, row, column] @ function
    torch.testing.assert_close(attention(maps)[0], expected.flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_attention_is_the_same_in_half_precision() -> None:
    attention, maps = LambdaAttention(16), drawn(1, 16, 32, 32)
    with torch.no_grad():
        expected = attention(maps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = attention(maps)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02 * expected.abs().max().item())


# PyTorch's own warns where a training of this process has asked for determinism
@pytest.mark.filterwarnings("ignore:max_unpooling2d:UserWarning")
@pytest.mark.parametrize("ties", [False, True])
def test_pooling_and_unpooling_are_pytorch_s_own(ties: bool) -> None:
    maps = drawn(2, 3, 8, 6).round() if ties else drawn(2, 3, 8, 6)
    values, indices = max_pool2d(maps, 2, return_indices=True)
    found, places = max_pool_placed(maps)
    assert torch.equal(found, values)
    assert torch.equal(max_unpool(found, places), max_unpool2d(values, indices, 2))


def test_a_lower_encoder_stage_runs_its_second_block_twice(network: CrackFormerNetwork) -> None:
    assert [len(stage.blocks) for stage in network.encoder] == [1, 2, 2, 2, 2]  # type: ignore[arg-type]
    runs = [
        len(stage(drawn(1, width, 8, 8)))
        for stage, width in zip(network.encoder, (16, 16, 32, 64, 128), strict=True)
    ]
    assert runs == [1, 2, 3, 3, 3]


def test_the_crack_map_is_fused_of_the_side_maps(network: CrackFormerNetwork) -> None:
    features, sides = network.with_side_maps(drawn(1, 3, 64, 32))
    assert [tuple(side.shape) for side in sides] == [(1, 1, 64, 32)] * 5
    torch.testing.assert_close(network.head(features), network.fuse(torch.cat(sides, dim=1)))
    assert features.shape[1] == 16 + 4


def test_the_loss_is_that_of_the_five_side_maps_and_the_fused_one_alike() -> None:
    network, image = CrackFormer(width=16, dropout=0.0).build(), drawn(1, 3, 32, 64)
    target, valid = (drawn(1, 1, 32, 64) > 1).float(), torch.ones(1, 1, 32, 64)
    found, logits = PhaseObjective(network, BalancedBCE()).train()(image, target, valid, {})
    _, sides = network.with_side_maps(image)
    torch.testing.assert_close(found, sum(BalancedBCE().build()(z, target, valid) for z in (*sides, logits)))


def test_dropout_acts_in_training_alone(network: CrackFormerNetwork) -> None:
    image = drawn(1, 3, 32, 32)
    torch.testing.assert_close(network(image), network(image), rtol=0, atol=0)
    trained = CrackFormer(width=16, dropout=0.3).build().train()
    assert not torch.equal(trained(image), trained(image))


@pytest.mark.parametrize("width", [8, 24])
def test_a_width_that_its_blocks_cannot_quarter_twice_is_refused(width: int) -> None:
    with pytest.raises(ValidationError):
        CrackFormer(width=width)
