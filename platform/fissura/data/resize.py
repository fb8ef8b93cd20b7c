"""How an image and its mask are brought to the working size of a recipe, before the cache keeps them."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from fissura.core.spec import Spec


class Native(Spec):
    """Images keep their size."""

    kind: Literal["native"] = "native"

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image itself."""
        return image

    def mask(self, mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """The mask itself."""
        return mask


class Fixed(Spec):
    """Images become `height` x `width` pixels: images by pixel area (bilinear to enlarge), masks by nearest
    neighbour."""

    kind: Literal["fixed"] = "fixed"
    height: int = Field(512, ge=16, le=8192)
    width: int = Field(512, ge=16, le=8192)

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """The image at the working size."""
        import cv2

        shrinks = image.shape[0] > self.height or image.shape[1] > self.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (self.width, self.height), interpolation=method), dtype=np.uint8)

    def mask(self, mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "height width"]:
        """The mask at the working size, still {0, 1}."""
        import cv2

        resized = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, dtype=np.uint8)


AnyResize = Annotated[Native | Fixed, Field(discriminator="kind")]
