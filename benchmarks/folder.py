"""A folder of photographs through `upscale.py`'s pipeline, beside the bare network.

    python benchmarks/folder.py --weights LKDN_x4.pth [--images 24] [--format png]

Images of 320×180 become 1280×720: reading, computing and writing overlap. Both ways run
in turn in one process; what is compared is the time of one image in the steady state.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import skimage.data
from PIL import Image

from lkdn_jax.cli import ArgumentParser, run


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True)
    add("--images", type=int, default=24)
    add("--rounds", type=int, default=3)
    add("--format", choices=("png", "jpg", "webp"), default="png")
    flags = parser.parse_args()
    from lkdn_jax.inference.folder import upscale_files
    from lkdn_jax.inference.jobs import find_jobs
    from lkdn_jax.inference.upscaler import Upscaler

    photograph = Image.fromarray(skimage.data.coffee()).resize((320, 180))
    upscaler = Upscaler(flags.weights)
    seconds: dict[str, list[float]] = {"network": [], "folder": []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for i in range(flags.images):
            photograph.rotate(i).save(source / f"{i:03}.png")
        for _ in range(flags.rounds + 1):
            start = time.perf_counter()
            for _ in range(flags.images):
                upscaler(np.asarray(photograph))
            seconds["network"].append(time.perf_counter() - start)
            start = time.perf_counter()
            jobs = find_jobs([str(source)], Path(folder) / "out", f".{flags.format}")
            upscale_files(upscaler, jobs, overwrite=True)
            seconds["folder"].append(time.perf_counter() - start)
    network, pipeline = (np.array(s[1:]) / flags.images for s in seconds.values())
    print(f"network {np.median(network) * 1e3:.1f} ms an image")
    print(f"folder  {np.median(pipeline) * 1e3:.1f} ms an image")
    print(f"throughput: {np.median(network / pipeline):.3f} × the bare network's")


if __name__ == "__main__":
    sys.exit(run(main))
