"""Upscale many files: decoding, computing and encoding overlap; nothing is redone."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lkdn_jax.data.images import DECODE_ERRORS, FORMATS, READ_FORMATS, check_size
from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import read_photo, write_photo
from lkdn_jax.errors import InputError
from lkdn_jax.files import check_folder, remove_leftovers
from lkdn_jax.inference.jobs import (
    UNKNOWN,
    Job,
    find_jobs,
    found_size,
    is_done,
    passed_over,
)
from lkdn_jax.inference.upscaler import TILE, Upscaler, create_upscaler
from lkdn_jax.progress import Progress, ignore

_LARGEST_FACTOR = 64

Size = tuple[int, int]  # width, height


@dataclass
class Summary:
    """What became of the files.

    Attributes:
        total: Files in all, and folders that could not be listed.
        done: Files written.
        skipped: Files that were there already.
        notes: Source and what changed in it, in words.
        failures: Source and reason.
    """

    total: int
    done: int = 0
    skipped: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, job: Job, writing: Future[tuple[str, ...]]) -> None:
        """Add a file that is being written, and what its format could not keep."""
        try:
            self.notes += [f"{job.source}: {note}" for note in writing.result()]
            self.done += 1
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            self.add_failure(job, error)

    def add_failure(self, job: Job, error: Exception) -> None:
        """Add a file that was not upscaled."""
        message = " ".join(str(error).split()) or type(error).__name__
        at = "" if message.startswith(str(job.source)) else f"{job.source}: "
        self.failures.append(at + message)


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    *,
    resize: Callable[[Size], Size] | None = None,
    overwrite: bool = False,
    progress: Progress = ignore,
) -> Summary:
    """Upscale files; an output that is there and newer is not redone.

    What is there and older is replaced only if it has the size of the output, where
    Pillow can tell (up to 179 megapixels).

    Args:
        upscaler: The network.
        jobs: What to read and write.
        resize: From width and height of the input to those of the output, if they are
            not the network's.
        overwrite: Do again what is there.
        progress: Called with a file's name, tiles done and tiles in all.

    Returns:
        What became of the files. A file that fails does not stop the others.
    """
    summary = Summary(len(jobs))
    for folder in {job.target.parent for job in jobs}:
        remove_leftovers(folder)
    waiting = [job for job in jobs if overwrite or not is_done(job)]
    summary.skipped = len(jobs) - len(waiting)
    tiles = (_count_tiles(upscaler, job.source) for job in waiting)
    done = list(itertools.accumulate(tiles, initial=0))

    # One image is read and one written while a third is computed.
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = [reader.submit(read_photo, job.source) for job in waiting[:1]]
        written: list[tuple[Job, Future[tuple[str, ...]]]] = []
        for i, job in enumerate(waiting):
            tick = _ticking(progress, job.source.name, done[i], done[-1])
            tick()
            now = reading.pop()
            concurrent.futures.wait([now])
            following = waiting[i + 1 : i + 2]
            reading = [reader.submit(read_photo, job.source) for job in following]
            try:
                photo = now.result()
                size = _output_size(upscaler, photo, resize)
                check_size(job.target, FORMATS[job.target.suffix.lower()], *size[::-1])
                _check_target(job.target, None if overwrite else size)
                upscaled = upscaler.photo(photo, tick)
            except Exception as error:  # noqa: BLE001  whatever it is, the others go on
                summary.add_failure(job, error)
                continue
            while written:
                summary.add(*written.pop())
            written = [(job, writer.submit(_write, job.target, upscaled, size))]
            del photo, upscaled
        while written:
            summary.add(*written.pop())
    return summary


def _ticking(
    progress: Progress, name: str, done: int, total: int
) -> Callable[[], None]:
    """Return a function that shows `done`, and one more whenever it is called again."""
    count = itertools.count(done)
    return lambda: progress(name, min(next(count), total), total)


def _output_size(
    upscaler: Upscaler, photo: Photo, resize: Callable[[Size], Size] | None
) -> Size:
    h, w = photo.pixels.shape[:2]
    return resize((w, h)) if resize else (w * upscaler.scale, h * upscaler.scale)


def upscale_inputs(
    inputs: Sequence[str],
    output: Path,
    weights: str,
    *,
    format: str | None = None,  # noqa: A002
    fit: Size | None = None,
    outscale: float | None = None,
    overwrite: bool = False,
    device: str | None = None,
    tile: int | None = None,
    progress: Progress = ignore,
    **options: Any,
) -> Summary:
    """Upscale files, folders and patterns; what `upscale.py` does.

    Args:
        inputs: As for `find_jobs`.
        output: The folder to write to.
        weights: A file for `lkdn_jax.load`.
        format: Suffix of all outputs, without a dot; None keeps that of the input.
        fit: Width and height to fit the results into, or None.
        outscale: Factor by which the results are larger than the inputs, or None.
        overwrite: Do again what is there.
        device: As for `create_upscaler`.
        tile: As for `Upscaler`; None takes its default.
        progress: As for `upscale_files`.
        **options: Other arguments of `create_upscaler`.

    Returns:
        What became of the files.

    Raises:
        InputError: An input, an output folder or an argument that cannot be used.
    """
    if outscale is not None and not 0 < outscale <= _LARGEST_FACTOR:
        raise InputError(
            f"outscale {outscale}: must be over 0 and at most {_LARGEST_FACTOR}"
        )
    if output.suffix.lower() in FORMATS and not output.is_dir():
        raise InputError(
            f"{output}: --output is the folder to write to; the format is the input's "
            "or --format"
        )
    check_folder(output)
    for name in inputs:
        if output.is_dir() and Path(name).is_dir() and output.samefile(name):
            raise InputError(f"{name} is also --output; give another --output")
    jobs = find_jobs(inputs, output, f".{format}" if format else None)
    tile = TILE if tile is None else tile
    upscaler = create_upscaler(weights, device, tile=tile, **options)
    resize = fit_into(fit) if fit else times(outscale) if outscale else None
    summary = upscale_files(
        upscaler, jobs, resize=resize, overwrite=overwrite, progress=progress
    )
    notes, unlisted = passed_over(inputs, output)
    summary.notes += notes
    summary.failures += unlisted
    summary.total += len(unlisted)
    return summary


def fit_into(box: Size) -> Callable[[Size], Size]:
    """Return the rule that makes an image as large as fits into a box."""
    return lambda size: _scaled(size, min(box[0] / size[0], box[1] / size[1]))


def times(factor: float) -> Callable[[Size], Size]:
    """Return the rule that makes an image `factor` times as wide and high."""
    return lambda size: _scaled(size, factor)


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _write(target: Path, photo: Photo, size: Size) -> tuple[str, ...]:
    if size != photo.pixels.shape[1::-1]:
        photo = _resized(photo, size)
    return photo.notes + write_photo(target, photo)


def _resized(photo: Photo, size: Size) -> Photo:
    """Resize by Lanczos, colour and alpha apart."""

    def plane(array: np.ndarray) -> np.ndarray:
        if array.dtype == np.uint8:
            return np.asarray(
                Image.fromarray(array).resize(size, Image.Resampling.LANCZOS)
            )
        wide = Image.fromarray(array.astype(np.float32))
        resized = np.asarray(wide.resize(size, Image.Resampling.LANCZOS))
        return np.rint(resized.clip(0, np.iinfo(array.dtype).max)).astype(array.dtype)

    planes = [plane(np.ascontiguousarray(p)) for p in photo.pixels.transpose(2, 0, 1)]
    alpha = None if photo.alpha is None else plane(photo.alpha)
    return photo.replace(np.stack(planes, axis=-1), alpha)


def _check_target(target: Path, size: Size | None) -> None:
    """Refuse to replace a link, and what is no earlier output, of `size`."""
    if target.is_symlink():
        raise InputError(
            f"{target} is a link, and what it leads to would be replaced; remove the "
            "link or give another --output"
        )
    if size is None or not target.is_file() or target.stat().st_size == 0:
        return
    if found_size(target) not in (size, UNKNOWN):
        raise InputError(
            f"{target} is no image, or older and no image of the output's size, so "
            "perhaps no output; give another --output, or --overwrite to replace it"
        )


def _count_tiles(upscaler: Upscaler, path: Path) -> int:
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            w, h = image.size
            alpha = image.has_transparency_data
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return 0  # what is wrong with it is said when it is read
    return upscaler.count_tiles(h, w) * (2 if alpha else 1)
