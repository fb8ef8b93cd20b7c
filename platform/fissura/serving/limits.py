"""Limits of one request, and of all requests together."""

from pydantic import Field

from fissura.core.spec import Spec
from fissura.data.images import MAX_PIXELS


class Limits(Spec):
    """Every limit of the service.

    One request: `body_bytes` of its body, `images` in a batch, `pixels` of one image (whatever its file's
    size), `seconds` until its response. One model: `batch_pixels` in one batch of the network. All requests:
    `waiting_images`, `waiting_bytes` of their bodies, and `waiting_seconds` that the images ahead of a new
    one may take at the last measured speed; requests beyond are refused, to be retried. One client:
    `idle_seconds` in which it neither sends nor reads, or does not finish the head of a request, and
    `connections_of_one` address; `connections` of all.
    """

    body_bytes: int = Field(256 * 2**20, ge=1024, le=2**34)
    images: int = Field(64, ge=1, le=10_000)
    pixels: int = Field(MAX_PIXELS, ge=1024, le=2**32)
    seconds: float = Field(300.0, gt=0, le=86_400)
    batch_pixels: int = Field(2**22, ge=1, le=2**32)
    waiting_images: int = Field(256, ge=1, le=100_000)
    waiting_bytes: int = Field(2**30, ge=1024, le=2**40)
    waiting_seconds: float = Field(20.0, gt=0, le=86_400)
    idle_seconds: float = Field(10.0, gt=0, le=3600)
    connections_of_one: int = Field(1024, ge=1, le=2**20)
    connections: int = Field(4096, ge=1, le=2**20)
