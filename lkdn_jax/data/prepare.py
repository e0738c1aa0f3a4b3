"""Prepare photographs for training: cut them into tiles, once.

Makes a TFDS dataset of array_record files. LR images are taken where there are any,
else made by MATLAB's bicubic. Interrupted at any moment, the same command goes on.

Example: python -m lkdn_jax.data.prepare --input photos --output photos_x4 --scale 4
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lkdn_jax.cli import ArgumentParser, progress_bar, run
from lkdn_jax.data.builders import PreparedTiles, open_prepared, write_dataset
from lkdn_jax.data.folders import partial_folder, publish
from lkdn_jax.data.inputs import Photograph, find_photographs
from lkdn_jax.data.pairs import LrMode
from lkdn_jax.data.tiles import TILE, check_tile, cut_tiles
from lkdn_jax.data.workers import map_in_processes
from lkdn_jax.errors import InputError
from lkdn_jax.progress import Progress, ignore

# A worker needs some 300 MB for a photograph of three megapixels.
MAX_WORKERS = 6
_LISTED = 10


@dataclass(frozen=True)
class Options:
    """How photographs become tiles.

    Attributes:
        scale: The factor, an integer >= 1.
        tile: Side of an HR tile, in pixels, a multiple of scale.
        lr_mode: As in `pairs.load_pair`.
    """

    scale: int
    tile: int = TILE
    lr_mode: LrMode = "auto"


@dataclass(frozen=True)
class Prepared:
    """What a run did.

    Attributes:
        photographs: How many photographs are in the dataset.
        tiles: How many tiles they gave.
        skipped: One reason for each photograph left out.
        existed: Whether the dataset was already there.
    """

    photographs: int
    tiles: int
    skipped: tuple[str, ...] = ()
    existed: bool = False


def _write_tile(path: Path, image: np.ndarray) -> None:
    # Lossless WebP at its least effort is smaller than PNG and faster both ways.
    Image.fromarray(image).save(path, "WEBP", lossless=True, quality=0, method=0)


def cut_photograph(work: tuple[Photograph, Path], options: Options) -> str:
    """Cut one photograph into encoded tiles, unless that was done before.

    Args:
        work: The files, and the folder for the tiles, named by `Photograph.key`.
        options: how.

    Returns:
        Why it cannot be used, or nothing.

    Raises:
        OSError: The tiles cannot be written.
    """
    photograph, target = work
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    if target.is_dir():
        return ""
    try:
        lr, hr = photograph.load(options.scale, options.lr_mode)
        tiles = cut_tiles(lr, hr, options.scale, options.tile, str(photograph.hr))
    except InputError as error:
        return str(error)
    temporary.mkdir(exist_ok=True)
    for i in range(len(tiles)):
        _write_tile(temporary / f"{i:05d}_lr.webp", tiles.lr[i])
        _write_tile(temporary / f"{i:05d}_hr.webp", tiles.hr[i])
    try:
        publish(temporary, target)
    except OSError:
        # A worker that outlived its killed parent for a moment may have been faster.
        if not target.is_dir():
            raise
    return ""


def _cut_all(
    works: Sequence[tuple[Photograph, Path]],
    options: Options,
    workers: int | None,
    progress: Progress,
) -> list[str]:
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers} must be at least 1: leave it out")
    workers = workers or min(os.cpu_count() or 1, MAX_WORKERS)
    cut = partial(cut_photograph, options=options)
    total, reasons = len(works), []
    for reason in map_in_processes(cut, works, min(workers, total)):
        reasons.append(reason)
        progress("cutting", len(reasons), total)
    return reasons


def _unusable(bad: Sequence[str], total: int) -> InputError:
    listed = "; ".join(bad[:_LISTED])
    more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    advice = ", or leave them out with --skip_bad" if len(bad) < total else ""
    return InputError(
        f"{len(bad)} of {total} photographs cannot be used: mend them{advice}: "
        f"{listed}{more}"
    )


def _display_name(photograph: Photograph) -> str:
    # A name in another encoding than UTF-8 could not be stored.
    return os.fsencode(photograph.hr.name).decode(errors="replace")


def _examples(works: Sequence[tuple[Photograph, Path]]) -> list[dict[str, str]]:
    return [
        {
            "name": _display_name(photograph),
            "lr": str(lr),
            "hr": str(lr.with_name(lr.name.replace("_lr", "_hr"))),
        }
        for photograph, folder in works
        for lr in sorted(folder.glob("*_lr.webp"))
    ]


def _write(
    examples: Sequence[dict[str, str]],
    metadata: dict[str, Any],
    partial_output: Path,
    progress: Progress,
) -> Path:
    root = partial_output / "dataset"
    shutil.rmtree(root, ignore_errors=True)
    builder = PreparedTiles(
        examples,
        metadata,
        lambda done: progress("writing", done, len(examples)),
        data_dir=str(root),
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            write_dataset(builder)
    except RuntimeError as error:
        # What array_record makes of a full disk.
        raise OSError(str(error)) from error
    return Path(builder.data_dir)


def _existing(output: Path, metadata: dict[str, Any]) -> Prepared | None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        _, stored, tiles = open_prepared(output)
    except InputError as error:
        raise InputError(
            f"{output} exists and is no prepared dataset: nothing is overwritten; "
            "choose another --output"
        ) from error
    differing = [key for key in metadata if metadata[key] != stored.get(key)]
    if differing:
        was = ", ".join(
            f"{key} {stored.get(key)}" for key in differing if key != "files"
        )
        raise InputError(
            f"{output} exists, made with {was or 'other photographs'}: nothing is "
            "overwritten; choose another --output or delete it"
        )
    return Prepared(int(stored["photographs"]), tiles, existed=True)


def prepare(
    inputs: Sequence[Path],
    output: Path,
    options: Options,
    *,
    lr_inputs: Sequence[Path] = (),
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Progress = ignore,
) -> Prepared:
    """Prepare photographs for training.

    What is done is kept in `{output}.partial`; `output` is there whole or not at all.
    One made of the same files in the same way is left as it is.

    Args:
        inputs: Folders or zips of HR images, at least one.
        output: Folder of the dataset to make.
        options: how.
        lr_inputs: For each input, a folder or zip of its LR images; or none.
        workers: Processes (default: one a core, up to `MAX_WORKERS`).
        skip_bad: Leave out photographs that cannot be used.
        progress: A function of a stage, the steps done and their total.

    Returns:
        What was done.

    Raises:
        InputError: Photographs that cannot be used, an unreadable input, an output of
            another kind, or a full disk.
    """
    check_tile(options.tile, options.scale)
    photographs = find_photographs(inputs, lr_inputs, options.scale)
    keys = [photograph.key(options) for photograph in photographs]
    files = hashlib.sha256("".join(keys).encode()).hexdigest()
    metadata = asdict(options) | {"files": files}
    with partial_folder(output) as folder:
        # Looked for under the lock: another process may just have finished it.
        if existing := _existing(output, metadata):
            shutil.rmtree(folder)  # Killed just before that, it was still there.
            return existing
        (folder / "tiles").mkdir(exist_ok=True)
        # Named once: a file that is touched meanwhile would have another key.
        folders = [folder / "tiles" / key for key in keys]
        works = list(zip(photographs, folders, strict=True))
        reasons = _cut_all(works, options, workers, progress)
        bad = tuple(reason for reason in reasons if reason)
        if bad and (not skip_bad or len(bad) == len(photographs)):
            raise _unusable(bad, len(photographs))
        examples = _examples(works)
        metadata["photographs"] = len(photographs) - len(bad)
        publish(_write(examples, metadata, folder, progress), output)
        shutil.rmtree(folder)
    return Prepared(metadata["photographs"], len(examples), bad)


def _parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    paths: dict[str, Any] = {"type": Path, "action": "append"}
    add("--input", **paths, required=True, help="folder or zip of images; repeatable")
    add("--lr_input", **paths, default=[], help="folder or zip of its LR images")
    add("--output", type=Path, required=True, help="folder of the dataset to make")
    add("--scale", type=int, required=True)
    add("--tile", type=int, default=TILE, help=f"side of an HR tile (default: {TILE})")
    add(
        "--lr_mode",
        choices=("auto", "matlab", "basicsr"),
        default="auto",
        help="take the LR images there are, else make them as matlab (auto), or make "
        "all of them in this bicubic mode",
    )
    add("--workers", type=int, help="processes (default: one a core, at most 6)")
    add("--skip_bad", action="store_true", help="leave out what cannot be used")
    return parser


def main() -> None:
    """Run the command."""
    flags = _parse().parse_args()
    with progress_bar() as progress:
        done = prepare(
            flags.input,
            flags.output,
            Options(flags.scale, flags.tile, flags.lr_mode),
            lr_inputs=flags.lr_input,
            workers=flags.workers,
            skip_bad=flags.skip_bad,
            progress=progress,
        )
    for reason in done.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    verb = "already has" if done.existed else "has"
    print(
        f"{flags.output} {verb} {done.photographs} photographs, {done.tiles} tiles of "
        f"{flags.tile}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
