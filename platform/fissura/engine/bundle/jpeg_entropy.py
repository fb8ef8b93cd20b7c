"""Huffman-coded coefficients of baseline JPEG scans (ITU-T T.81, annex F).

A table of all 16-bit beginnings gives, in one look, what a code and the bits behind it say: how many bits
they are, how many coefficients further they lead, and which value stands there. It is packed into one
integer, value << 16 | advance << 8 | bits. Where code and value are longer than 16 bits together, `bits` is 0
and the value is length << 8 | symbol, or 0 for a code that no symbol has.
"""

import functools

import numpy as np
from unreadable import Unreadable

END_OF_BLOCK = 128  # an advance past any coefficient
PADDING = bytes(512)  # what a block can read beyond the end before that is noticed: 64 codes of 31 bits
FLUSH = 1 << 16


@functools.lru_cache(maxsize=8)  # the standard tables, which most files have, take longer to make than to use
def huffman_table(counts: bytes, symbols: bytes, *, dc: bool) -> list[int]:
    """What each 16-bit beginning says; `counts` are how many codes each length 1..16 has, `symbols` theirs.

    Raises:
        Unreadable: there are more codes than there can be.
    """
    lengths = np.repeat(np.arange(1, 17), list(counts))
    spans = 1 << (16 - lengths)
    unused = (1 << 16) - int(spans.sum())
    if unused < 0:
        raise Unreadable("damaged JPEG: a Huffman table has more codes than there can be")
    symbol = np.append(np.frombuffer(symbols, np.uint8).astype(np.int64), 0)
    length = np.append(lengths, 0)
    size = symbol if dc else symbol & 15
    bits = length + size
    known = (length > 0) & (size < 16)
    quick = known & (bits <= 16)
    advance = np.zeros_like(symbol) if dc else (symbol >> 4) + 1
    if not dc:
        # no value: the rest of the block is 0, or sixteen coefficients are
        advance[(size == 0) & (symbol != 0xF0)] = END_OF_BLOCK
    same = np.where(quick, advance << 8 | bits, np.where(known, (length << 8 | symbol) << 16, 0))
    shift, size = np.where(quick, 16 - bits, 0), np.where(quick, size, 0)
    spread = np.append(spans, unused)
    size = size.repeat(spread)
    value = np.arange(1 << 16) >> shift.repeat(spread) & (1 << size) - 1
    # a first bit of 0 says that the value is negative
    value -= np.where(value << 1 < 1 << size, (1 << size) - 1, 0)
    packed: list[int] = ((value << 16) + same.repeat(spread)).tolist()
    return packed


class ScanPart:
    """A component of a scan: where its coefficients go, and its tables."""

    def __init__(self, coefficients: np.ndarray, dc: list[int], ac: list[int]) -> None:
        self.coefficients, self.dc, self.ac = coefficients, dc, ac


def decode_part(coded: bytes, parts: list[ScanPart], mcus: list[list[list[int]]]) -> None:
    """Decodes the MCUs between two restart markers; `coded` is without stuffed bytes.

    `mcus` holds, for each component and MCU, where the blocks begin in the component's coefficients.
    """
    limit = 8 * len(coded)
    padded = np.frombuffer(coded + PADDING, np.uint8).astype(np.uint32)
    # the 32 bits from each byte on
    joined = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
    windows = memoryview(joined.astype(np.uint32).data)
    places: list[list[int]] = [[] for _ in parts]
    values: list[list[int]] = [[] for _ in parts]
    levels = [0] * len(parts)
    work = [(number, part.dc, part.ac, mcus[number]) for number, part in enumerate(parts)]
    at = 0
    for mcu in range(len(mcus[0])):
        for number, dc, ac, blocks in work:
            for origin in blocks[mcu]:
                difference, at = _level(windows, dc, at)
                levels[number] += difference
                places[number].append(origin)
                values[number].append(levels[number])
                at = _block(windows, ac, at, origin, places[number], values[number])
                if at > limit:
                    raise Unreadable("damaged JPEG: it ends before its last row")
            if len(places[number]) > FLUSH:
                _store(parts[number], places[number], values[number])
    for part, where, what in zip(parts, places, values, strict=True):
        _store(part, where, what)


def _store(part: ScanPart, places: list[int], values: list[int]) -> None:
    part.coefficients[np.array(places, np.intp)] = np.array(values, np.float32)
    places.clear()
    values.clear()


def _level(windows: memoryview, codes: list[int], at: int) -> tuple[int, int]:
    """The difference of a block's mean to that of the block before it, and the bit behind."""
    entry = codes[windows[at >> 3] >> 16 - (at & 7) & 0xFFFF]
    if entry & 0xFF:
        return entry >> 16, at + (entry & 0xFF)
    length, size = _long(entry)
    return _bits(windows, at + length, size), at + length + size


def _block(
    windows: memoryview, codes: list[int], at: int, origin: int, places: list[int], values: list[int]
) -> int:
    """Notes the places and values of a block's other coefficients; gives the bit behind them."""
    place, end = origin, origin + 63
    while place < end:
        entry = codes[windows[at >> 3] >> 16 - (at & 7) & 0xFFFF]
        bits = entry & 0xFF
        if bits:
            at += bits
            place += entry >> 8 & 0xFF
            value = entry >> 16
        else:
            length, symbol = _long(entry)
            size = symbol & 15
            place += (symbol >> 4) + 1
            value = _bits(windows, at + length, size)
            at += length + size
        if place > end:
            if place - origin >= END_OF_BLOCK:
                break
            raise Unreadable("damaged JPEG: a block has more than 64 coefficients")
        places.append(place)
        values.append(value)
    return at


def _long(entry: int) -> tuple[int, int]:
    """The length of a code and its symbol, where the two with the value are more than 16 bits."""
    if not entry:
        raise Unreadable("damaged JPEG: a code is not in its Huffman table")
    return entry >> 24, entry >> 16 & 0xFF


def _bits(windows: memoryview, at: int, size: int) -> int:
    """The signed value in `size` (1..15) bits."""
    value: int = windows[at >> 3] >> 32 - size - (at & 7) & (1 << size) - 1
    return value if value >> size - 1 else value - (1 << size) + 1
