"""Which files to read, and where each goes."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lkdn_jax.data.images import DECODE_ERRORS, FORMATS, IMAGE_SUFFIXES, READ_FORMATS
from lkdn_jax.errors import InputError

UNKNOWN = (0, 0)


@dataclass(frozen=True)
class Job:
    """One file to read and the file to write."""

    source: Path
    target: Path


def find_jobs(
    inputs: Sequence[str], output: Path, suffix: str | None = None
) -> list[Job]:
    """List the files to upscale and where each goes.

    Args:
        inputs: Files, folders (taken with their subfolders, whose structure is kept)
            and glob patterns.
        output: The folder to write to; what lies in it is no input.
        suffix: Suffix of all outputs, with its dot; None keeps that of the input.

    Returns:
        Jobs in a stable order.

    Raises:
        InputError: An input that is not there or holds no image, an output that names
            no format, or two files that would be written to one.
        OSError: A folder that cannot be listed.
    """
    # A source by where it is: as it was given, and where it goes in `output`.
    sources: dict[Path, tuple[Path, Path]] = {}
    for name in inputs:
        found = {
            source.parent.resolve() / source.name: (source, goes)
            for source, goes in _expand(name, output)
        }
        if not found and not glob.has_magic(name) and not Path(name).exists():
            raise InputError(f"{name} does not exist: check the path")
        if not found:
            if os.path.isdir(name):
                os.scandir(name).close()  # raises where that is why
            raise InputError(
                f"{name}: no image found; give image files "
                f"({', '.join(IMAGE_SUFFIXES)}), folders or patterns"
            )
        sources |= found
    jobs, targets = [], {}
    read = {_identity(source) for source, _ in sources.values()} - {None}
    for source, relative in sources.values():
        target = output / (relative.with_suffix(suffix) if suffix else relative)
        other = targets.setdefault(target, source)
        if other != source:
            raise InputError(
                f"{other} and {source} would both be written to {target}; rename one "
                "or give another --output"
            )
        if target.suffix.lower() not in FORMATS:
            raise InputError(
                f"{source}: its suffix is none of {', '.join(FORMATS)}; convert it or, "
                "if it is such an image, give --format for the output"
            )
        if _identity(target) in read:
            raise InputError(
                f"{target} is an input and would be overwritten; give another --output"
            )
        jobs.append(Job(source, target))
    return jobs


def passed_over(inputs: Sequence[str], output: Path) -> tuple[list[str], list[str]]:
    """Say how many files in the folders are no images, and which cannot be listed.

    Args:
        inputs: As for `find_jobs`.
        output: As for `find_jobs`.

    Returns:
        A sentence for each folder with files of other suffixes (hidden ones do not
        count), and one for each folder that cannot be listed.
    """
    notes, unlisted = [], []
    for name in filter(os.path.isdir, inputs):
        errors: list[OSError] = []
        files = _walk(Path(name), output, errors.append)
        others = [s for file in files if (s := file.suffix.lower()) not in FORMATS]
        unlisted += [f"{e.filename}: passed over ({e.strerror})" for e in errors]
        if others:
            kinds = ", ".join(sorted({suffix or "no suffix" for suffix in others}))
            notes.append(
                f"{name}: files passed over: {len(others)} ({kinds}); only "
                f"{', '.join(IMAGE_SUFFIXES)} are read"
            )
    return notes, unlisted


def is_done(job: Job) -> bool:
    """Say whether the output is there, an image, and no older than its input."""
    if not (job.target.is_file() and job.source.exists()):
        return False
    newer = job.target.stat().st_mtime >= job.source.stat().st_mtime
    return newer and found_size(job.target) is not None


def found_size(path: Path) -> tuple[int, int] | None:
    """Return an image's width and height, None if a file is none.

    Returns:
        `UNKNOWN` of an image where Pillow cannot tell: over 179 megapixels, and some
        kinds of TIFF.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            return image.size
    except Image.DecompressionBombError:
        return UNKNOWN
    except DECODE_ERRORS:
        tiff = path.suffix.lower() in (".tif", ".tiff") and path.stat().st_size
        return UNKNOWN if tiff else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what two names of one file share, None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _walk(
    path: Path, output: Path, failed: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """List the files below a folder, but nothing hidden, no output, no pipe."""
    root, out, linked = path.resolve(), output.resolve(), set()

    def enter(folder: Path) -> bool:
        real = folder.resolve()
        if folder.is_symlink():
            # What a link shows of the folder itself, or another link did, is done once.
            if real in linked or root in (real, *real.parents) or real in root.parents:
                return False
            linked.add(real)
        inside_output = out in (real, *real.parents) and out not in root.parents
        return not (folder.name.startswith(".") or inside_output)

    for folder, folders, files in os.walk(path, onerror=failed, followlinks=True):
        inside = Path(folder)
        folders[:] = [f for f in sorted(folders) if enter(inside / f)]
        for file in (inside / f for f in sorted(files) if not f.startswith(".")):
            # A link to nothing will be named; what cannot be looked at, too.
            if os.path.isfile(file) or not os.path.exists(file):
                yield file


def _expand(name: str, output: Path) -> Iterator[tuple[Path, Path]]:
    path = Path(name)
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for source in _walk(path, output):
            if source.suffix.lower() in FORMATS:
                yield source, source.relative_to(path)
    else:
        fixed = Path(re.split(r"[*?[]", name)[0] + "_").parent
        above = {folder.resolve() for folder in (fixed / "_").parents}
        for match in map(Path, sorted(glob.glob(name, recursive=True))):  # noqa: PTH207
            folders = {folder.resolve() for folder in match.parents} - above
            inside = output.resolve() in folders
            if match.suffix.lower() in FORMATS and match.is_file() and not inside:
                yield match, Path(match.name)
