"""Report PSNR and SSIM of a network on benchmark images.

Example: python evaluate.py --weights LKDN_x4.pth --data Set5 --output report.html
"""

import sys
from pathlib import Path

from lkdn_jax.cli import ArgumentParser, console, progress_bar, run


def parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        action="append",
        help=".pth, .safetensors or .msgpack; repeatable, to compare",
    )
    add("--data", required=True, action="append", help="folder of images; repeatable")
    add("--scale", type=int, help="the scale the weights must have (default: theirs)")
    add(
        "--output",
        type=Path,
        action="append",
        default=[],
        help="report: .html (with pictures), .json, .md or .csv; repeatable",
    )
    add("--figures", type=Path, help="folder for the pictures as PNG files")
    add("--save_images", type=Path, help="folder for the upscaled images")
    add("--rgb", action="store_true", help="also report PSNR and SSIM over RGB")
    add(
        "--lr_mode",
        choices=("auto", "matlab", "basicsr"),
        default="auto",
        help="take the LR files (auto), or make LR images in this bicubic mode",
    )
    return parser


def main() -> None:
    flags = parse().parse_args()
    from lkdn_jax.evaluation.comparison import compare_files
    from lkdn_jax.evaluation.dataset import Options
    from lkdn_jax.evaluation.outputs import check_outputs, write_outputs
    from lkdn_jax.evaluation.report import print_report

    pictures = check_outputs(flags.output, flags.figures, flags.data)
    options = Options(flags.lr_mode, flags.rgb, flags.save_images)
    with progress_bar() as progress:
        entries = compare_files(
            flags.weights,
            flags.data,
            scale=flags.scale,
            options=options,
            progress=progress,
            pictures=pictures,
        )
    for entry in entries:
        print_report(entry.report, console())
    for path in write_outputs(flags.output, flags.figures, entries):
        print(f"wrote {path}")
    if flags.save_images:
        print(f"wrote {flags.save_images}")


if __name__ == "__main__":
    sys.exit(run(main))
