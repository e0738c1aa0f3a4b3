"""Open a source of training data, decoding it the first time."""

import hashlib
import io
import itertools
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from lkdn_jax.data.builders import Div2k, open_prepared, write_dataset
from lkdn_jax.data.folders import PARTIAL, partial_folder, publish
from lkdn_jax.data.images import IMAGE_SUFFIXES
from lkdn_jax.data.photographs import photograph_tiles
from lkdn_jax.data.tiles import Tiles, check_tile, cut_tiles, load_tiles, write_tiles
from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write
from lkdn_jax.progress import Progress, ignore

PHOTOGRAPHS = "photographs"
_TFDS = "tfds:"
_DECODED = "decoded_t"
_DOWNLOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    zipfile.BadZipFile,
    tfds.download.DownloadError,
    NonMatchingChecksumError,
)
# Each thread holds a whole photograph and its tiles.
_MAX_THREADS = 8


def open_tiles(
    source: str,
    scale: int,
    tile: int,
    progress: Progress = ignore,
    *,
    data_dir: str | None = None,
    decoded_dir: str | None = None,
) -> Tiles:
    """Open a source of training data.

    The first time, and when it has changed, a dataset is decoded into a folder
    `decoded_t{tile}` inside it, or where decoded_dir says; from then on that is mapped
    into memory.

    Args:
        source: `photographs`, those embedded in scikit-image; `tfds:div2k`, or a
            config of it such as `tfds:div2k/unknown_x4`, downloaded the first time;
            or the folder of a dataset made by `python -m lkdn_jax.data.prepare`.
        scale: The factor, an integer >= 1.
        tile: Side of an HR tile, in pixels, a multiple of scale.
        progress: A function of a stage, the steps done and their total.
        data_dir: Where TFDS keeps its datasets (default: TFDS's own).
        decoded_dir: A folder to decode into instead, for a dataset that cannot be
            written to; in it, each dataset's whole path is repeated.

    Returns:
        The tiles.

    Raises:
        InputError: No such dataset, one of another scale, an empty one, images that
            were not prepared, a tile larger than an image, a failing download, or a
            full disk.
    """
    check_tile(tile, scale)
    if source == PHOTOGRAPHS:
        return photograph_tiles(scale, tile)
    if source.startswith(_TFDS):
        builder = _div2k(source, scale, data_dir)
    else:
        builder = _prepared(Path(source), scale, tile)
    try:
        return _decoded(builder, decoded_dir, scale, tile, progress)
    except RuntimeError as error:  # what array_record's reader raises for a torn file
        raise InputError(
            f"{source} cannot be read ({' '.join(str(error).split())}): it is damaged; "
            "delete it and prepare it again"
        ) from error


def _check_same_scale(source: str, stored: int, scale: int) -> None:
    if stored != scale:
        raise InputError(
            f"{source} has scale {stored} but {scale} is asked for: both must be the "
            "same; choose a dataset of that scale"
        )


def _div2k(source: str, scale: int, data_dir: str | None) -> tfds.core.DatasetBuilder:
    name, _, config = source.removeprefix(_TFDS).partition("/")
    config = config or f"bicubic_x{scale}"
    if name != Div2k.name or config not in Div2k.builder_configs:
        raise InputError(
            f"{source} is unknown: of the TFDS catalogue only div2k is read, with one "
            f"of {', '.join(Div2k.builder_configs)}; prepare other images with "
            "python -m lkdn_jax.data.prepare"
        )
    _check_same_scale(source, int(re.findall(r"\d+$", config)[0]), scale)
    builder = Div2k(config=config, data_dir=data_dir)
    urls = ", ".join(builder.urls.values())
    manual = Path(builder.data_dir).parents[2] / "downloads" / "manual"
    try:
        write_dataset(builder, manual=str(manual))
    except _DOWNLOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:400]
        raise InputError(
            f"{source} cannot be downloaded and prepared ({reason}): check the network "
            f"and free space, or put these files into {manual} and try again: {urls}"
        ) from error
    return builder


def _prepared(folder: Path, scale: int, tile: int) -> tfds.core.DatasetBuilder:
    if not (folder / "dataset_info.json").is_file():
        raise InputError(_why_no_dataset(folder, scale, tile))
    builder, metadata, _ = open_prepared(folder)
    stored, largest = int(metadata["scale"]), int(metadata["tile"])
    _check_same_scale(str(folder), stored, scale)
    if tile > largest:
        raise InputError(
            f"{folder} has tiles of {largest} but {tile} is asked for: that must not "
            f"be larger; ask for {largest // scale * scale}, or prepare the images "
            f"again with --tile {tile}"
        )
    return builder


def _why_no_dataset(folder: Path, scale: int, tile: int) -> str:
    output = folder.with_name(f"{folder.stem}_x{scale}")
    command = (
        f"python -m lkdn_jax.data.prepare --input {shlex.quote(str(folder))} "
        f"--output {shlex.quote(str(output))} "
        f"--scale {scale} --tile {tile}"
    )
    if folder.is_file() and folder.suffix.lower() == ".zip":
        return f"{folder} is a zip that must be prepared first; run: {command}"
    if folder.with_name(folder.name + PARTIAL).is_dir():
        return (
            f"{folder} is not finished: only a whole dataset is read; run the "
            "interrupted python -m lkdn_jax.data.prepare again"
        )
    if not folder.is_dir():
        return (
            f"{folder} does not exist: a source is {PHOTOGRAPHS}, {_TFDS}div2k or the "
            "folder of a prepared dataset; check the path"
        )
    files = list(itertools.islice(folder.rglob("*"), 10_000))
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return f"{folder} holds images that must be prepared first; run: {command}"
    what = "holds no dataset and no images" if files else "is empty"
    return f"{folder} {what}: give the folder of a prepared dataset"


def _decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def _decode_all(
    data: Sequence[Any], folder: Path, scale: int, tile: int, progress: Progress
) -> Iterator[Tiles]:
    def decode(index: int) -> Tiles:
        example = data[index]
        if example["lr"] is None:  # so array_record takes a file cut between records
            raise RuntimeError("records are missing")
        name = example.get("name", f"image {index}".encode()).decode()
        lr, hr = _decode(example["lr"]), _decode(example["hr"])
        return cut_tiles(lr, hr, scale, tile, f"{folder}: {name}")

    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        # A few at a time: mapping over all of them would decode ahead of the disk.
        for start in range(0, len(data), threads):
            progress("decoding", start, len(data))
            yield from pool.map(decode, range(start, min(start + threads, len(data))))
    progress("decoding", len(data), len(data))


def _decoded(
    builder: Any, decoded_dir: str | None, scale: int, tile: int, progress: Progress
) -> Tiles:
    folder = Path(builder.data_dir)
    place = folder
    if decoded_dir:  # A shell leaves the ~ of `--data.decoded_dir=~/tiles` as it is.
        place = Path(decoded_dir, *folder.resolve().parts[1:]).expanduser()
    target, source = place / f"{_DECODED}{tile}", _fingerprint(folder)
    if tiles := _load_decoded(target, source):
        return tiles
    with partial_folder(target, ", or elsewhere: --data.decoded_dir=DIR") as partial:
        # Looked for under the lock: another process may just have finished it.
        if tiles := _load_decoded(target, source):
            return tiles
        skip: Any = tfds.decode.SkipDecoding()
        data = builder.as_data_source(split="train", decoders={"lr": skip, "hr": skip})
        write_tiles(partial, _decode_all(data, folder, scale, tile, progress))
        shutil.rmtree(target, ignore_errors=True)  # of a dataset that was here before
        with atomic_write(_source_file(target)) as file:
            file.write(source.encode())
        publish(partial, target)
    return load_tiles(target)


def _load_decoded(target: Path, source: str) -> Tiles | None:
    """Return what was decoded, if it is whole and of this source."""
    try:
        if _source_file(target).read_text() == source:
            return load_tiles(target)
    except (OSError, ValueError, EOFError):
        pass
    return None


def _source_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.source")


def _fingerprint(folder: Path) -> str:
    """Return what tells a dataset from another: descriptions, and sizes of records."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    parts = [
        (
            file.name,
            file.read_bytes() if file.suffix == ".json" else file.stat().st_size,
        )
        for file in files
        if not file.name.startswith((".", _DECODED))
    ]
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()
