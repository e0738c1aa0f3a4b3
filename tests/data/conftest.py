"""PNG files that Pillow does not write, put together by hand."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def png_chunk() -> Callable[[bytes, bytes], bytes]:
    """Return a function of a kind and its data that gives a chunk."""

    def png_chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    return png_chunk


@pytest.fixture(scope="session")
def encode_png(png_chunk: Callable[[bytes, bytes], bytes]) -> Callable[..., bytes]:
    """Return a function of packed rows [h, bytes], uint8, that gives a file.

    Its other arguments are the width in pixels, the bits a channel, PNG's number of the
    kind of colour, and chunks that come before the pixels.
    """

    def encode_png(
        rows: np.ndarray, width: int, depth: int, color: int, *chunks: bytes
    ) -> bytes:
        header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
        filtered = np.pad(rows, ((0, 0), (1, 0)))  # 0, no filter, before every row
        return (
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", header)
            + b"".join(chunks)
            + png_chunk(b"IDAT", zlib.compress(filtered.tobytes()))
            + png_chunk(b"IEND", b"")
        )

    return encode_png
