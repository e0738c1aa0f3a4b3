"""Report PSNR and SSIM of a network on benchmark images.

Example: python evaluate.py --weights LKDN_x4.pth --data Set5 --data Set14
"""

import sys
from pathlib import Path

from lkdn_jax.cli import ArgumentParser, console, progress_bar, run


def parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, help=".pth, .safetensors or .msgpack")
    add("--data", required=True, action="append", help="folder of images; repeatable")
    add("--scale", type=int, help="the scale the weights must have (default: theirs)")
    add("--output", type=Path, help="report to write: .json, .md or .csv")
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
    from lkdn_jax.evaluation.benchmark import Options, evaluate_file
    from lkdn_jax.evaluation.report import check_output, print_report, write_report

    if flags.output:
        check_output(flags.output)
    options = Options(flags.lr_mode, flags.rgb, flags.save_images)
    with progress_bar() as progress:
        report = evaluate_file(
            flags.weights,
            flags.data,
            scale=flags.scale,
            options=options,
            progress=progress,
        )
    if flags.output:
        write_report(flags.output, report)
    print_report(report, console())
    if flags.output:
        print(f"wrote {flags.output}")


if __name__ == "__main__":
    sys.exit(run(main))
