"""The main job on real photographs: `make demo`.

Trains a small network for two minutes on photographs that come with scikit-image, and
compares it, on others, with bicubic interpolation and ×4 weights such as the published.
"""

import os
import sys
from pathlib import Path

from lkdn_jax.cli import ArgumentParser, console, progress_bar, run
from lkdn_jax.errors import InputError

PUBLISHED = (
    "https://github.com/stella-von/LKDN, folder experiments/pretrained_models/LKDN"
)
_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.py"
_SHOWN = "chelsea"
_CROP = slice(60, 220), slice(140, 300)  # an eye of the cat


def find_weights(path: str | None) -> Path | None:
    """Find ×4 weights to compare with, the published ones if none are given.

    Args:
        path: A file, or None to look in the folder `LKDN_REFERENCE`.

    Returns:
        The file, or None where the folder has none.

    Raises:
        InputError: `path` is no file.
    """
    if path is not None:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; download it from {PUBLISHED}")
        return Path(path)
    folder = Path(os.environ.get("LKDN_REFERENCE", "."))
    weights = folder / "weights" / "LKDN_x4.pth"
    return weights if weights.is_file() else None


def write_picture(photographs: Path, upscaled: dict[str, Path], path: Path) -> None:
    """Write a picture of LR, bicubic, our outputs and HR side by side.

    Args:
        photographs: Dataset of HR images.
        upscaled: Folders of upscaled images, by title.
        path: The picture to write.
    """
    from lkdn_jax.data.images import read_rgb, write_image
    from lkdn_jax.data.pairs import find_pairs, load_pair
    from lkdn_jax.evaluation.figures import comparison_picture

    pairs = {Path(p.name).stem: p for p in find_pairs(photographs, 4).pairs}
    lr, hr = load_pair(pairs[_SHOWN], 4)
    name = f"{_SHOWN}.png"
    outputs = {title: read_rgb(folder / name) for title, folder in upscaled.items()}
    write_image(path, comparison_picture(lr, outputs, hr, 4, _CROP))


def main() -> None:
    """Run the demo."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--weights", help="×4, to compare with, such as LKDN_x4.pth")
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument(
        "--steps", type=int, default=0, help="fewer than the config's, 21 or more"
    )
    flags = parser.parse_args()
    from lkdn_jax.evaluation.benchmark import evaluate_network
    from lkdn_jax.evaluation.dataset import Options
    from lkdn_jax.evaluation.report import print_report
    from lkdn_jax.training.config import load_config
    from lkdn_jax.training.loop import train_and_evaluate
    from lkdn_jax.weights.files import load

    weights, output = find_weights(flags.weights), flags.output
    model, params = load(weights) if weights else (None, {})
    if model is not None and model.scale != 4:
        raise InputError(f"{weights}: for scale {model.scale}; the demo compares at 4")
    overrides = [f"--steps={flags.steps}"] if flags.steps else []
    if not train_and_evaluate(load_config(_CONFIG, overrides), output):
        return
    photographs = output / "validation" / "photographs"
    upscaled = {"two minutes' training": output / "upscaled" / "photographs"}
    if model is None:
        print(f"The published weights, to compare with: {PUBLISHED}; then: "
              "make demo WEIGHTS=LKDN_x4.pth")  # fmt: skip
    else:
        options = Options(save_images=output / "compared")
        with progress_bar() as progress:
            report = evaluate_network(
                str(weights),
                model,
                params,
                photographs,
                options=options,
                progress=progress,
            )
        print_report(report, console())
        title = Path(report["name"]).stem[:24]
        upscaled[title] = output / "compared" / "photographs"
    picture = output / "comparison.png"
    write_picture(photographs, upscaled, picture)
    print(f"Look at {picture}: {_SHOWN}, which the network never saw.")


if __name__ == "__main__":
    sys.exit(run(main))
