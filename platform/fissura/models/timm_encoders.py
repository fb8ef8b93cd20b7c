"""Encoders that segmentation-models-pytorch lacks or cannot pad: timm's networks, with timm's names."""

from jaxtyping import Float
from timm.models.inception_v3 import InceptionV3
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.nn.functional import pad


class InceptionV3Encoder(InceptionV3):  # type: ignore[misc]
    """Inception v3 with TensorFlow's `same` padding where it has none: each stride halves the size exactly.

    Before a stride of 2 only the right and the bottom are padded, so that the features away from the border
    are those of the published network for an image shifted by six pixels to the right and down.
    """

    def __init__(self) -> None:
        super().__init__(num_classes=0)
        self.channels = (64, 192, 288, 768)
        self.Conv2d_2a_3x3.conv.padding = self.Conv2d_4a_3x3.conv.padding = (1, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The feature maps at strides 2, 4, 8 and 16."""
        half = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(_pad_right_and_bottom(image))))
        quarter = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.Pool1(_pad_right_and_bottom(half))))
        eighth = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.Pool2(_pad_right_and_bottom(quarter)))))
        sixteenth = self.Mixed_6a(_pad_right_and_bottom(eighth))
        for block in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            sixteenth = block(sixteenth)
        return [half, quarter, eighth, sixteenth]


class SwinTinyEncoder(SwinTransformer):  # type: ignore[misc]
    """Swin-T (patches of 4, windows of 7) for images of any size; maps are padded to whole windows inside.

    It has no map at stride 2: None.
    """

    def __init__(self) -> None:
        super().__init__(
            num_classes=0,
            patch_size=4,
            window_size=7,
            embed_dim=96,
            depths=(2, 2, 6, 2),
            num_heads=(3, 6, 12, 24),
            strict_img_size=False,
        )
        self.channels = (0, 96, 192, 384)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor | None]:
        """The feature maps at strides 2 (None), 4, 8 and 16."""
        maps: list[Tensor | None] = [None]
        tokens = self.patch_embed(image)
        for layer in self.layers:
            tokens = layer(tokens)
            maps.append(tokens.permute(0, 3, 1, 2).contiguous())
        return maps


def _pad_right_and_bottom(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+1 w+1"]:
    return pad(features, (0, 1, 0, 1))
