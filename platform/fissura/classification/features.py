"""From images to a backbone's features: batches of one size, decoded ahead in threads."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from fissura.core.errors import DataChanged, DataError
from fissura.core.spec import digest
from fissura.models.backbones import FeatureNetwork
from fissura.training.allocator import return_memory
from fissura.training.out_of_memory import is_out_of_memory

FORMAT = 1  # raised when the same backbone and weights come to give other features
BATCH_PIXELS = 1 << 24
HELD_PIXELS = 1 << 26
NOT_FINITE = (
    "its features are not finite numbers; look at the weights of the backbone, or leave the image out"
)

Pixels = UInt8[np.ndarray, "h w 3"]
Batch = list[tuple[int, Pixels]]


@dataclass(frozen=True)
class ImageToRead:
    """An image: its content hash, its name in messages, and the function that decodes it (RGB, 0..255; raises
    DataError, or DataChanged, which ends the extraction, if the file changed since it was hashed)."""

    key: str
    name: str
    read: Callable[[], Pixels]


class SkippedImage(NamedTuple):
    """An image without features, and why."""

    name: str
    reason: str


class Extraction(NamedTuple):
    """A row of features a key, in the order of the images, and the images that have none."""

    keys: list[str]
    features: Float32[np.ndarray, "n d"]
    skipped: list[SkippedImage]


def backbone_digest(network: FeatureNetwork) -> str:
    """Sixteen hex digits that name a backbone: its spec, and the SHA-256 of all tensors of the network.

    Only the values of the weights count, not where they came from.
    """
    content = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        content.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
        content.update(plain.reshape(-1).view(torch.uint8).numpy())
    spec = {name: value for name, value in network.spec.plain().items() if name != "weights"}
    return digest({"format": FORMAT, "backbone": spec, "weights": content.hexdigest()})


def extract(
    network: FeatureNetwork,
    reads: Sequence[ImageToRead],
    *,
    batch_size: int,
    device: torch.device,
    on_image: Callable[[], None] | None = None,
) -> Extraction:
    """The features of images of any sizes, float32 [n d].

    `network` is moved to `device` and put into evaluation mode. An image that cannot be read, does not fit
    the memory, or has features that are not finite is skipped with the reason. The other images of a batch
    change an image's features only by rounding (1e-5). `on_image` is called once an image, skipped or not.

    Memory, beside network and features: one batch, which is `batch_size` images, or fewer of 16 million
    pixels together, or one larger image; and decoded images of some 67 million pixels together, or a larger
    one a thread.
    """
    network.eval().to(device)
    features = np.full((len(reads), network.dimensions), np.nan, np.float32)
    reasons: dict[int, str] = {}
    batcher = _Batcher(batch_size)
    tell = on_image or (lambda: None)

    def compute(batches: Iterator[Batch]) -> None:
        for batch in batches:
            _compute(network, batch, into=features, device=device, reasons=reasons)
            for _ in batch:
                tell()

    with _exact(device), torch.inference_mode():
        for row, decoded in enumerate(_decoded(reads, ahead=2 * batch_size)):
            if isinstance(decoded, str):
                reasons[row] = decoded
                tell()
            else:
                compute(batcher.add(row, decoded))
        compute(batcher.rest())
    kept = [row for row in range(len(reads)) if row not in reasons]
    return Extraction(
        [reads[row].key for row in kept],
        features[kept],
        [SkippedImage(reads[row].name, reasons[row]) for row in sorted(reasons)],
    )


class _Batcher:
    """Collects decoded images of one size into batches."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._groups: dict[tuple[int, ...], Batch] = {}
        self._pixels = 0

    def add(self, row: int, image: Pixels) -> Iterator[Batch]:
        """Adds an image; yields the batches that must be computed now."""
        height, width = size = image.shape[:2]
        group = self._groups.setdefault(size, [])
        group.append((row, image))
        self._pixels += height * width
        if len(group) >= self._batch_size or (len(group) + 1) * height * width > BATCH_PIXELS:
            yield self._take(size)
        # images of many sizes fill no batch: the fullest one is then computed as it is
        while self._pixels > HELD_PIXELS // 2:
            yield self._take(max(self._groups, key=lambda size: len(self._groups[size])))

    def rest(self) -> Iterator[Batch]:
        """The batches that are not full."""
        while self._groups:
            yield self._take(next(iter(self._groups)))

    def _take(self, size: tuple[int, ...]) -> Batch:
        batch = self._groups.pop(size)
        self._pixels -= len(batch) * size[0] * size[1]
        return batch


def _decoded(reads: Sequence[ImageToRead], *, ahead: int) -> Iterator[Pixels | str]:
    """Each image, or why it cannot be decoded, in order; at most `ahead` are decoded ahead."""
    threads = max(2, torch.get_num_threads())
    largest, begun = HELD_PIXELS, 0
    futures: deque[Future[Pixels | str]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while begun < len(reads) or futures:
                # sizes are known only after decoding: the largest so far says how many images fit
                room = max(threads, min(ahead, HELD_PIXELS // 2 // largest))
                while begun < len(reads) and len(futures) < room:
                    futures.append(pool.submit(_decode, reads[begun]))
                    begun += 1
                decoded = futures.popleft().result()
                if not isinstance(decoded, str):
                    pixels = decoded.shape[0] * decoded.shape[1]
                    largest = pixels if largest == HELD_PIXELS else max(largest, pixels)
                yield decoded
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(image: ImageToRead) -> Pixels | str:
    try:
        return image.read()
    except DataChanged:
        raise
    except DataError as error:
        return "; ".join(error.problems)
    except OSError as error:
        return f"{error.filename or image.name}: cannot be read: {error.strerror or error}"
    except MemoryError:
        return "it does not fit the memory when it is decoded; make it smaller"


def _compute(
    network: FeatureNetwork,
    batch: Batch,
    *,
    into: Float32[np.ndarray, "n d"],
    device: torch.device,
    reasons: dict[int, str],
) -> None:
    """Writes the features of a batch into their rows; one that does not fit the memory is halved."""
    rows = [row for row, _ in batch]
    try:
        images = torch.from_numpy(np.stack([image for _, image in batch])).to(device)
        computed = network(images).float().cpu().numpy()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        computed = None
        return_memory()
    if computed is not None:
        into[rows] = computed
        broken = np.flatnonzero(~np.isfinite(computed).all(axis=1))
        reasons.update((rows[index], NOT_FINITE) for index in broken)
    elif len(batch) == 1:
        height, width = batch[0][1].shape[:2]
        reasons[rows[0]] = f"its {width}x{height} pixels do not fit the memory; make it smaller"
    else:
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            _compute(network, half, into=into, device=device, reasons=reasons)


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """Full float32: a GPU's TF32 rounds by 1e-3, and differently in another batch."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
