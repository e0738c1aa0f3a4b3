"""Time the host's data path beside a plain copy and beside decoding, in one run.

One thread makes batches of the ×4 recipe, 64 patches of 192 with their LR patches of
48, from tiles mapped into memory. Beside it: a plain copy of the same bytes; decoding
the PNG of every patch; and decoding the PNG of the tile that holds it, as a reader of
480x480 sub-images does.

    python benchmarks/host_data.py [--input PHOTOGRAPHS] [--output host_data.json]
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image

from benchmarks import timing
from lkdn_jax.cli import ArgumentParser, progress_bar, run
from lkdn_jax.data.datasets import open_tiles
from lkdn_jax.data.pipeline import host_batches
from lkdn_jax.data.prepare import Options, prepare
from lkdn_jax.data.samples import Sampling, cut_samples, draw_samples
from lkdn_jax.data.tiles import Tiles, load_tiles, write_tiles

SCALE, TILE, BATCH, LR_PATCH, ROUNDS = 4, 480, 64, 48, 30


def open_input(path: Path | None, folder: Path) -> Tiles:
    """Prepare a folder of photographs, or the embedded ones, in a scratch folder."""
    with progress_bar() as progress:
        if path is None:
            write_tiles(folder, [open_tiles("photographs", SCALE, TILE)])
            return load_tiles(folder)
        output = folder / "prepared"
        prepare([path], output, Options(SCALE, TILE), progress=progress)
        return open_tiles(str(output), SCALE, TILE, progress)


def encode(image: np.ndarray) -> bytes:
    """Encode an image as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def decode_all(encoded: list[bytes]) -> None:
    """Decode PNGs one after the other."""
    for data in encoded:
        np.asarray(Image.open(io.BytesIO(data)))


def tasks(tiles: Tiles) -> dict[str, Callable[[], object]]:
    """List what is timed, each making or standing for one batch."""
    step = iter(range(10**9))
    free = TILE // SCALE - LR_PATCH

    def cut() -> tuple[np.ndarray, np.ndarray]:
        samples = draw_samples(0, next(step), BATCH, [len(tiles)], None, free)
        return cut_samples([tiles], samples, LR_PATCH)

    ready = [cut() for _ in range(8)]
    patches = [encode(image) for pair in ready[0] for image in pair]
    chosen = draw_samples(0, 0, BATCH, [len(tiles)], None, free)[:, 0]
    stored = {i: (encode(tiles.lr[i]), encode(tiles.hr[i])) for i in set(chosen)}
    whole = [data for i in chosen for data in stored[i]]
    return {
        "host path": cut,
        "plain copy": lambda: [array.copy() for array in ready[next(step) % 8]],
        "decode PNG patches": lambda: decode_all(patches),
        "decode PNG tiles": lambda: decode_all(whole),
    }


def pipeline_rate(tiles: Tiles, num_threads: int, num_workers: int = 0) -> float:
    """Measure the whole pipeline's batches a second, reading ahead."""
    batches = host_batches(
        [tiles],
        Sampling(0, BATCH, LR_PATCH),
        num_threads=num_threads,
        num_workers=num_workers,
    )
    with closing(batches):
        for _ in range(20):
            next(batches)
        start = time.perf_counter()
        for _ in range(100):
            next(batches)
        return 100 / (time.perf_counter() - start)


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--input", type=Path, help="folder of photographs, >= 480x480")
    timing.add_output(parser)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiles = open_input(flags.input, Path(folder))
        result = timing.interleave(tasks(tiles), ROUNDS)
        cores = os.cpu_count() or 1
        rates = {
            "1 thread": pipeline_rate(tiles, num_threads=1),
            f"{cores} threads": pipeline_rate(tiles, num_threads=cores),
            f"{cores} workers": pipeline_rate(tiles, num_workers=cores, num_threads=1),
        }
    title = f"{len(tiles)} tiles of {TILE}; a batch of {BATCH} patches of 192 and 48"
    timing.print_table(f"{title}, on one core", result)
    for name, value in rates.items():
        print(
            f"pipeline, {name:10} {value:8.1f} batches/s, {value * BATCH:.0f} patches/s"
        )
    record = {"tiles": len(tiles), "batches": result, "batches_per_second": rates}
    timing.write(flags.output, record)


if __name__ == "__main__":
    sys.exit(run(main))
