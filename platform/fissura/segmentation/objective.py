"""What a phase minimises: the network, the loss and the loss's own heads, as one module.

Data-parallel training wraps the whole, so that a head of a single phase is trained with the rest.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fissura.losses.loss import BatchMaps, LossSpec
from fissura.models import Segmenter
from fissura.segmentation.side_maps import side_loss

Maps = Float[Tensor, "b 1 h w"]


class PhaseObjective(nn.Module):
    """`model` is the network, which outlives the phase; `criterion`, which computes the loss, does not."""

    def __init__(self, model: Segmenter, loss: LossSpec) -> None:
        super().__init__()
        self.model, self.criterion = model, loss.criterion(model.feature_channels)
        self.register_load_state_dict_pre_hook(_rename_old_state)  # type: ignore[no-untyped-call]

    def outputs(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """What the loss reads of the network, image by image: the crack logits, the criterion's readings and,
        in training, the network's side maps, if any."""
        if self.training and self.model.side_maps:
            features, sides = self.model.with_side_maps(image)
            readings = self.criterion.readings(features)
            return self.model.head(features).float(), *readings, *(logits.float() for logits in sides)
        if not self.criterion.reads:
            # cheaper than by its features in some networks
            return (self.model(image).float(),)
        features = self.model.features(image)
        return self.model.head(features).float(), *self.criterion.readings(features)

    def loss_of(
        self, outputs: tuple[Tensor, ...], target: Maps, valid: Maps, maps: BatchMaps
    ) -> Float[Tensor, ""]:
        """The loss of a whole batch from its outputs, in float32; `maps` are the loss's own. Side maps add
        their weighted losses to that of the crack logits."""
        own = 1 + self.criterion.reads
        loss: Tensor = self.criterion(outputs[:own], target, valid, maps)
        if len(outputs) == own:
            return loss
        sides = side_loss(self.criterion, self.model.side_maps, outputs[own:], target, valid, maps)
        return self.model.crack_weight * loss + sides

    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, maps: BatchMaps
    ) -> tuple[Float[Tensor, ""], Maps]:
        """The loss and the crack logits."""
        outputs = self.outputs(image)
        with torch.autocast(image.device.type, enabled=False):
            return self.loss_of(outputs, target, valid, maps), outputs[0]


def _rename_old_state(objective: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Accepts states of versions that kept a criterion's tensors without its prefix."""
    for name in [name for name in state if not name.startswith(("model.", "criterion."))]:
        state[f"criterion.{name}"] = state.pop(name)
