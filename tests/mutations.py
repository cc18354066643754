"""What befalls a file on its way, or is done to it on purpose: valid bytes in, other bytes out, the same for a seed."""

import random
import re
from collections.abc import Callable, Sequence

# Lengths, counts and offsets are read from headers: these are what goes wrong with them.
EXTREMES = (
    0,
    1,
    -1,
    127,
    255,
    2**15 - 1,
    2**16 - 1,
    2**24,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)
VALUES = (
    b"", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"0x10", b"1.5", b"9" * 30, b"9" * 5000,
    b"null", b"true", b"[]", b"{}", b"[1]", b'""', b'"x"', b"[" * 5000, b"\\ud800",
)  # fmt: skip
_HEADER_BYTES = 400
_MOST_REPEATS = 200


def mutated(valid: bytes, rng: random.Random, siblings: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """One to three mutations on top of each other; the bytes, and the names of what was done.

    Args:
        siblings: valid content of other files, of which a part or all may come in.
    """
    content, names = valid, []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutate = rng.choice(_MUTATIONS)
        content = mutate(content, rng, siblings or (valid,))
        names.append(mutate.__name__.strip("_"))
    return content, ", ".join(names)


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, and half of the times in the header."""
    end = min(len(content), _HEADER_BYTES) if rng.random() < 0.5 else len(content)
    return rng.randrange(end) if end else 0


def _part(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(content, rng)
    longest = rng.choice((4, 16, 256, len(content)))
    return start, min(len(content), start + rng.randint(1, max(1, longest)))


def _flip_bits(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8)) if content else 0):
        changed[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    return content[: _place(content, rng)]


def _remove(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + content[end:]


def _insert(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    place = _place(content, rng)
    return content[:place] + rng.randbytes(rng.choice((1, 4, 64, 1000))) + content[place:]


def _repeat(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    start, end = _part(content, rng)
    times = rng.choice((1, 1, 3, _MOST_REPEATS))
    return content[:end] + content[start : min(end, start + 256)] * times + content[end:]


def _overwrite(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + rng.choice((b"\0", b"\xff", b" ", b"[")) * (end - start) + content[end:]


def _set_extreme(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    """Some number of the header is the largest, the smallest or none."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(EXTREMES) % 2 ** (8 * size)
    place = _place(content, rng) // min(size, 4) * min(size, 4)
    return content[:place] + number.to_bytes(size, rng.choice(("little", "big"))) + content[place + size :]


def _swap(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    """Two numbers, such as a length and an offset, stand in each other's place."""
    size = rng.choice((2, 4, 8))
    first, second = sorted(_place(content, rng) // size * size for _ in range(2))
    if second < first + size:
        return content
    middle = content[first + size : second]
    return content[:first] + content[second : second + size] + middle + content[first : first + size] + content[
        second + size :
    ]  # fmt: skip


def _change_a_value(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    """In text: another number, name or value, or none."""
    found = list(re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"', content[:20_000]))
    if not found:
        return content
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(VALUES) + content[match.end() :]


def _cross(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    """It begins as itself and ends as another."""
    return content[: _place(content, rng)] + (other := rng.choice(siblings))[_place(other, rng) :]


def _another(content: bytes, rng: random.Random, siblings: Sequence[bytes]) -> bytes:
    return rng.choice((b"", *siblings))


_MUTATIONS: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    _flip_bits,
    _flip_bits,
    _truncate,
    _remove,
    _insert,
    _repeat,
    _overwrite,
    _set_extreme,
    _set_extreme,
    _set_extreme,
    _swap,
    _change_a_value,
    _change_a_value,
    _change_a_value,
    _cross,
    _another,
)
