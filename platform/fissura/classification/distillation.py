"""The losses that a backbone is trained with: of the labels, or of the labels and a teacher's features
(adversarial distillation).

    L = w_s L_s + w_a L_a + L_d
    L_s = cross-entropy of a linear head on f(x)
    L_d = - mean log D(R t) - mean log(1 - D(P f(x)))      trains only D, which tells whose features they are
    L_a = - mean log D(P f(x))                             trains only f and P: the student fools D

f: student's features; t: teacher's features, standardised; R: fixed random projection to k dimensions; P:
linear map to k dimensions, part of the student; D: a perceptron of two hidden layers with a sigmoid; w_s,
w_a: weights.

The paper names teacher, student and discriminator and prints neither architecture nor loss. Readings:
- the student's loss is the non-saturating one (Goodfellow et al., 2014), as a good discriminator would
  otherwise leave no gradient; one optimizer steps both sides: Adam's step does not depend on a loss's scale,
  so L_d has no weight;
- the teacher is a ResNet50 that was trained on the same labels (or on ImageNet), frozen, in eval mode. It
  sees each training image once, unchanged; the student sees that image flipped, turned, brightened. The
  losses match distributions, so the pairs only keep the classes in proportion, and the student approaches the
  teacher's features of the undisturbed image;
- both are compared in k dimensions. In its own 2048 a teacher's features would be recognised by where ReLU
  cuts them off, whatever the student does; a random projection keeps distances (Johnson and Lindenstrauss,
  1984) and has no such edges. It is standardised by mean and deviation over the training images;
- P and D are dropped after the training; the head is kept beside the weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear

from fissura.classification.backbone_images import PackedImages
from fissura.core.files import replacing
from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.models.backbones import BackboneName, FeatureNetwork
from fissura.training.runtime import Runtime

TEACHER = "teacher-{rank}-of-{workers}.safetensors"
TEACHER_BATCH = 64


Start = Annotated[str, Field(min_length=1, max_length=4096)]
"""Starting weights: `none` (random), `imagenet` or the path of a .safetensors file."""


class Distillation(Spec):
    """The teacher's kind, the weights of the losses w_s and w_a, the dimensions k that features are compared
    in, the width of the discriminator's hidden layers, and the weights that the teacher's training starts
    from: `none` (random), `imagenet` or the path of a .safetensors file."""

    teacher: BackboneName = "resnet50"
    supervised_weight: float = Field(1.0, gt=0, le=100)
    adversarial_weight: float = Field(0.1, ge=0, le=100)
    compared_dimensions: int = Field(64, ge=1, le=8192)
    discriminator_width: int = Field(256, ge=1, le=8192)
    teacher_start: Start = "none"


class Supervised(nn.Module):
    """A backbone that learns labels through a linear head. `TERMS` are its loss terms, the first is the
    loss."""

    TERMS: Sequence[str] = ("loss",)

    def __init__(self, network: FeatureNetwork, *, classes: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(network.dimensions, classes)

    def forward(
        self, pixels: Float[Tensor, "b 3 s s"], labels: Int[Tensor, " b"], taught: Float[Tensor, "b t"]
    ) -> Float[Tensor, " term"]:
        """The loss terms of images 0..1."""
        return cross_entropy(self.logits(pixels), labels).view(1)

    def logits(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c"]:
        """The class logits of images 0..1."""
        return self._classified(self._features(pixels))

    def _features(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        return self.network.embed(self.network.normalised(pixels))

    def _classified(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        logits: Tensor = self.head(features)
        return logits.float()


class Distilled(Supervised):
    """A student that learns labels and, through a discriminator, the distribution of its teacher's features.

    `told_apart` is the discriminator's accuracy: 0.5 where it only guesses.
    """

    TERMS = ("loss", "supervised", "adversarial", "discriminator", "told_apart")

    def __init__(self, network: FeatureNetwork, *, classes: int, spec: Distillation) -> None:
        super().__init__(network, classes=classes)
        self._spec = spec
        self.projection = nn.Linear(network.dimensions, spec.compared_dimensions)
        width = spec.discriminator_width
        self.discriminator = nn.Sequential(
            nn.Linear(spec.compared_dimensions, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(
        self, pixels: Float[Tensor, "b 3 s s"], labels: Int[Tensor, " b"], taught: Float[Tensor, "b t"]
    ) -> Float[Tensor, " term"]:
        """The loss terms of images 0..1; `taught` is their `teacher_features`."""
        features = self._features(pixels)
        supervised = cross_entropy(self._classified(features), labels)
        projected = self.projection(features)
        fooled = self._frozen_discriminator(projected).float()
        adversarial = binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled))
        teacher_logits = self.discriminator(taught).float()
        student_logits = self.discriminator(projected.detach()).float()
        discriminator = binary_cross_entropy_with_logits(
            teacher_logits, torch.ones_like(teacher_logits)
        ) + binary_cross_entropy_with_logits(student_logits, torch.zeros_like(student_logits))
        told_apart = ((teacher_logits > 0).float().mean() + (student_logits < 0).float().mean()) / 2
        spec = self._spec
        loss = spec.supervised_weight * supervised + spec.adversarial_weight * adversarial + discriminator
        return torch.stack([loss, supervised, adversarial, discriminator, told_apart])

    def _frozen_discriminator(self, features: Float[Tensor, "b t"]) -> Float[Tensor, "b 1"]:
        """The discriminator's logits, without a gradient for its weights: L_a trains only the student."""
        for layer in self.discriminator:
            if isinstance(layer, nn.Linear):
                features = linear(features, layer.weight.detach(), layer.bias.detach())
            else:
                features = layer(features)
        return features


def teacher_features(
    teacher: FeatureNetwork,
    *,
    images: PackedImages,
    dimensions: int,
    seed: int,
    directory: Path,
    runtime: Runtime,
) -> Float[Tensor, "n k"]:
    """The teacher's features of the unchanged training images, in the order of `images.train`, standardised
    and projected to `dimensions`.

    Each worker computes its share and writes it to `directory`, where the others, and a later attempt with as
    many workers, read it.
    """
    teacher = teacher.to(runtime.device).eval()
    mine = _path(directory, rank=runtime.rank, workers=runtime.world_size)
    rows = images.train[runtime.rank :: runtime.world_size]
    if _read(mine, rows=len(rows)) is None:
        batches = [rows[first : first + TEACHER_BATCH] for first in range(0, len(rows), TEACHER_BATCH)]
        with torch.inference_mode():
            parts = [
                teacher(torch.from_numpy(images.pixels[batch]).to(runtime.device)).cpu() for batch in batches
            ]
        features = torch.cat(parts) if parts else torch.zeros(0, teacher.dimensions)
        with replacing(mine) as scratch:
            save_file({"features": features.clone()}, scratch)
    runtime.mean(0.0)  # waits until every part is there
    whole = torch.empty(len(images.train), teacher.dimensions)
    for rank in range(runtime.world_size):
        path = _path(directory, rank=rank, workers=runtime.world_size)
        whole[rank :: runtime.world_size] = load_file(path)["features"]
    generator = torch.Generator().manual_seed(derive(seed, "projection"))
    projection = torch.randn(teacher.dimensions, dimensions, generator=generator)
    return _standardised(_standardised(whole) @ projection)


def _standardised(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return (features - features.mean(0)) / features.std(0, correction=0).clamp(min=1e-6)


def _path(directory: Path, *, rank: int, workers: int) -> Path:
    return directory / TEACHER.format(rank=rank, workers=workers)


def _read(path: Path, *, rows: int) -> Tensor | None:
    """The share of a worker; None if it is missing or torn."""
    try:
        features = load_file(path)["features"]
    except (OSError, KeyError, SafetensorError):
        return None
    return features if len(features) == rows else None


def forget_teacher(directory: Path) -> None:
    """Removes the files of `teacher_features`."""
    for path in directory.glob(TEACHER.format(rank="*", workers="*")):
        path.unlink(missing_ok=True)
