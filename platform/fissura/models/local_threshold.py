"""Local thresholds: Niblack's and Sauvola's.

x, m, s   a pixel; mean and standard deviation of the square window around it, in the evened grey image
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from fissura.core.paper import Paper
from fissura.models.filters import Filter, FilterNetwork, Gaussian, Plane, local_moments, wide_enough


def _odd(window: int) -> int:
    if window % 2 == 0:
        raise ValueError(f"a window has a pixel in its middle, so its side is odd; is {window}")
    return window


Window = Annotated[int, Field(ge=3, le=1001), AfterValidator(_odd)]
"""The side of a square of pixels."""
Blur = Annotated[float, Field(ge=0, le=100), AfterValidator(wide_enough)]


class LocalNetwork(FilterNetwork):
    """A network that compares a pixel with the moments about it, of the smoothed image."""

    def __init__(self, spec: "Niblack | Sauvola") -> None:
        super().__init__(spec)
        self.window, self.blur = spec.window, Gaussian(spec.blur) if spec.blur else None

    def moments(self, grey: Plane) -> tuple[Plane, Plane, Plane]:
        """x, m and s."""
        smooth = grey if self.blur is None else self.blur(grey)
        return smooth, *local_moments(smooth, self.window)


class Niblack(Filter):
    """Dark by more than k local deviations: a crack where (m - x) / (s + 0.001) >= k (Niblack, 1986).

    The response is the left side, k follows from the threshold: its logit. The image is first smoothed by a
    Gaussian of standard deviation `blur` pixels (0: not at all). `window` is the window's side in pixels.
    `weights` is `none`: there is nothing to learn.
    """

    paper: ClassVar[Paper | None] = Paper("Niblack", "Prentice-Hall", 1986)
    kind: Literal["niblack"] = "niblack"
    window: Window = 41
    blur: Blur = 1.0

    def network(self) -> "NiblackNetwork":
        """The filter of these settings."""
        return NiblackNetwork(self)


class NiblackNetwork(LocalNetwork):
    """Niblack's threshold as a network."""

    def response(self, grey: Plane) -> Plane:
        """(m - x) / (s + 0.001)."""
        pixel, mean, deviation = self.moments(grey)
        return (mean - pixel) / (deviation + 1e-3)

    def head(self, features: Plane) -> Plane:
        """The response itself."""
        return features


class Sauvola(Filter):
    """Darker than a share of the local mean, which falls where the deviation is low: a crack where
    T - x >= c with T = m (1 + k (s / R - 1)) (Sauvola and Pietikäinen, Pattern Recognition 2000).

    The response is T - x; the offset c, which the paper has as 0, follows from the threshold: a tenth of its
    logit. R, the largest deviation of pixels in [0, 1], is 0.5. With `k` 0, T is the local mean. `window` is
    the window's side in pixels. `blur` is Niblack's; 0, the paper's, lets the grain of a road respond.
    `weights` is `none`: there is nothing to learn.
    """

    paper: ClassVar[Paper | None] = Paper("Sauvola and Pietikäinen", "Pattern Recognition", 2000)
    kind: Literal["sauvola"] = "sauvola"
    window: Window = 61
    k: float = Field(0.3, ge=0, le=1)
    blur: Blur = 0.0

    def network(self) -> "SauvolaNetwork":
        """The filter of these settings."""
        return SauvolaNetwork(self)


class SauvolaNetwork(LocalNetwork):
    """Sauvola's threshold as a network."""

    def __init__(self, spec: Sauvola) -> None:
        super().__init__(spec)
        self.k = spec.k

    def response(self, grey: Plane) -> Plane:
        """T - x."""
        pixel, mean, deviation = self.moments(grey)
        return mean * (1 + self.k * (deviation / 0.5 - 1)) - pixel

    def head(self, features: Plane) -> Plane:
        """Ten times the response, which spreads the 256 levels of a map over the useful thresholds."""
        return 10 * features
