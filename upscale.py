"""Upscale photographs: files, folders (with their subfolders) and patterns.

Example: python upscale.py --weights LKDN_x4.pth photographs/ --output upscaled/
"""

import os
import re
import sys
from argparse import ArgumentTypeError
from pathlib import Path

from lkdn_jax.cli import ArgumentParser, progress_bar, run
from lkdn_jax.errors import InputError


def box(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})", text)
    if not found:
        raise ArgumentTypeError(
            f"{text!r}: give width and height, of at most 6 digits, like 1920x1080"
        )
    return int(found[1]), int(found[2])


def parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image file, folder or pattern")
    add("--weights", required=True, help=".pth, .safetensors or .msgpack")
    add("--output", required=True, type=Path, help="folder for the upscaled images")
    formats = ("png", "jpg", "webp", "tif", "bmp")
    add("--format", choices=formats, help="of the outputs (default: the input's)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--fit", type=box, help="resize to fit, like 1920x1080")
    size.add_argument("--outscale", type=float, help="resize to this factor, like 2.5")
    add("--self_ensemble", action="store_true", help="8 flips: finer, 8 × slower")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--tile", type=int, help="pixels a tile keeps; less needs less memory")
    add("--context", type=int, help="pixels around a tile (default: exact; 32 is fast)")
    add("--device", choices=("cpu", "gpu", "tpu"), help="(default: the fastest)")
    add("--overwrite", action="store_true", help="also do what is there already")
    return parser


def main() -> None:
    flags = parse().parse_args()
    if flags.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    from lkdn_jax.inference.folder import upscale_inputs

    with progress_bar() as progress:
        summary = upscale_inputs(**vars(flags), progress=progress)
    for note in summary.notes:
        print(f"note: {note}")
    if summary.failures and summary.total == 1:
        raise InputError(summary.failures[0])
    for failure in summary.failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(f"{summary.done} upscaled, {summary.skipped} already in {flags.output}")
    if summary.skipped:
        print("note: those may be of other options; --overwrite does them again")
    if summary.failures:
        raise InputError(f"{len(summary.failures)} of {summary.total} images failed")


if __name__ == "__main__":
    sys.exit(run(main))
