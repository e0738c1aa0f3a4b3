"""The main job on real photographs: `make demo`.

Shrinks photographs that come with scikit-image, upscales them with the published
network, and compares with bicubic interpolation. The network never saw them.
"""

import os
import sys
from pathlib import Path

import numpy as np
import skimage.data
from rich.console import Console

from lkdn_jax.cli import ArgumentParser, progress_bar, run
from lkdn_jax.data.bicubic import upscale
from lkdn_jax.data.images import read_rgb, write_image
from lkdn_jax.data.pairs import find_pairs, load_pair
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.benchmark import Options, evaluate_file
from lkdn_jax.evaluation.figures import enlarge, side_by_side
from lkdn_jax.evaluation.report import print_report, write_report

PUBLISHED = (
    "https://github.com/stella-von/LKDN, folder experiments/pretrained_models/LKDN"
)
_SHOWN = "chelsea"
_OTHERS = ("astronaut", "coffee", "rocket")
_CROP = slice(60, 220), slice(140, 300)  # the eyes of the cat


def find_weights(path: str | None) -> Path:
    """Find the published ×4 weights.

    Args:
        path: A file, or None to look in the folder `LKDN_REFERENCE`.

    Returns:
        The file.

    Raises:
        InputError: There is none.
    """
    reference = Path(os.environ.get("LKDN_REFERENCE", "."))
    weights = Path(path) if path else reference / "weights" / "LKDN_x4.pth"
    if not weights.is_file():
        raise InputError(
            f"no weights at {weights}; download LKDN_x4.pth from {PUBLISHED}, and run: "
            "make demo WEIGHTS=LKDN_x4.pth"
        )
    return weights


def write_photographs(folder: Path, names: tuple[str, ...]) -> None:
    """Write photographs that come with scikit-image.

    Args:
        folder: Where to write them, as PNG.
        names: Their names in `skimage.data`.
    """
    for name in names:
        write_image(folder / f"{name}.png", np.asarray(getattr(skimage.data, name)()))


def write_comparison(folder: Path, upscaled: Path, path: Path) -> None:
    """Write a picture of LR, bicubic, our output and HR side by side.

    Args:
        folder: Dataset of HR images that holds one image.
        upscaled: The upscaled image.
        path: The picture to write.
    """
    lr, hr = load_pair(find_pairs(folder, 4).pairs[0], 4)
    images = {
        "LR": enlarge(lr, 4),
        "bicubic": upscale(lr, 4),
        "LKDN": read_rgb(upscaled),
        "HR": hr,
    }
    crops = {title: enlarge(image[_CROP], 3) for title, image in images.items()}
    write_image(path, side_by_side(crops))


def main() -> None:
    """Run the demo."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--weights", help="the published LKDN_x4.pth")
    parser.add_argument("--output", type=Path, default=Path("demo"))
    flags = parser.parse_args()
    weights = find_weights(flags.weights)
    shown, others = flags.output / _SHOWN, flags.output / "photographs"
    write_photographs(shown, (_SHOWN,))
    write_photographs(others, _OTHERS)
    options = Options(save_images=flags.output / "upscaled")
    with progress_bar() as progress:
        report = evaluate_file(
            weights, [others, shown], scale=4, options=options, progress=progress
        )
    print_report(report, Console())
    write_report(flags.output / "report.json", report)
    picture = flags.output / f"{_SHOWN}.png"
    write_comparison(
        shown, flags.output / "upscaled" / shown.name / picture.name, picture
    )
    print(f"Report: {flags.output / 'report.json'}")
    print(f"Look at {picture}: LR, bicubic, LKDN and HR side by side.")


if __name__ == "__main__":
    sys.exit(run(main))
