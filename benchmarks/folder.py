"""A folder of photographs through `upscale.py`'s pipeline, beside the bare network.

    python benchmarks/folder.py --weights LKDN_x4.pth [--images 24] [--format png]

Images of 320×180 become 1280×720: reading, computing and writing overlap. Both ways run
in turn in one process; what is compared is the time that all images take.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import skimage.data
from PIL import Image

from benchmarks import timing
from lkdn_jax.cli import ArgumentParser, run


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True)
    add("--images", type=int, default=24)
    add("--rounds", type=int, default=3)
    add("--format", choices=("png", "jpg", "webp"), default="png")
    timing.add_output(parser)
    flags = parser.parse_args()
    from lkdn_jax.inference.folder import upscale_files
    from lkdn_jax.inference.jobs import find_jobs
    from lkdn_jax.inference.upscaler import Upscaler

    photograph = Image.fromarray(skimage.data.coffee()).resize((320, 180))
    upscaler = Upscaler(flags.weights)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for i in range(flags.images):
            photograph.rotate(i).save(source / f"{i:03}.png")
        jobs = find_jobs([str(source)], Path(folder) / "out", f".{flags.format}")

        def network() -> None:
            for _ in range(flags.images):
                upscaler(np.asarray(photograph))

        def whole() -> None:
            upscale_files(upscaler, jobs, overwrite=True)

        ways = {"network": network, "folder": whole}
        result = timing.interleave(ways, flags.rounds)
    timing.print_table(f"{flags.images} images into {flags.format}", result)
    throughput = 1 / result["folder"]["ratio"]
    print(f"throughput: {throughput:.3f} × the bare network's")
    timing.write(flags.output, {"images": flags.images, "ways": result})


if __name__ == "__main__":
    sys.exit(run(main))
