"""The photographs to prepare: folders and zips, with or without LR images."""

import contextlib
import hashlib
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from lkdn_jax.data.bicubic import Image, check_scale
from lkdn_jax.data.folders import PARTIAL
from lkdn_jax.data.images import IMAGE_SUFFIXES, list_images
from lkdn_jax.data.pairs import LrMode, Pair, find_pairs, load_pair, lr_names
from lkdn_jax.errors import InputError

# What is raised for members that are damaged, encrypted, or packed in other ways.
_ZIP_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ImageFile:
    """An image file, possibly inside a zip.

    Attributes:
        path: The image, or the zip.
        member: Its name inside the zip, or empty.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return str(self.path / self.member)

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(self.member or self.path).name

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a path to read the image from."""
        if not self.member:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            # A fixed name: a member's own could be anything.
            path = Path(folder) / "image"
            try:
                with zipfile.ZipFile(self.path) as archive:
                    content = archive.read(self.member)
            except _ZIP_ERRORS as error:
                raise InputError(
                    f"{self} cannot be unpacked ({error}): get a fresh copy of the zip"
                ) from error
            path.write_bytes(content)
            try:
                yield path
            except InputError as error:
                raise InputError(str(error).replace(str(path), str(self))) from error


@dataclass(frozen=True)
class Photograph:
    """What one group of tiles is made of.

    Attributes:
        hr: The HR image.
        lr: Its LR image, or None where it must be made from the HR image.
    """

    hr: ImageFile
    lr: ImageFile | None

    def key(self, *options: object) -> str:
        """Name the work to be done: the files as they are now, and the options."""
        described = []
        for file in (self.hr, self.lr):
            if file is not None:
                stat = file.path.stat()
                described.append((str(file), stat.st_size, stat.st_mtime_ns))
        text = repr((described, options))
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]

    def load(self, scale: int, lr_mode: LrMode) -> tuple[Image, Image]:
        """Read or make the pair, as `pairs.load_pair` does."""
        with contextlib.ExitStack() as stack:
            hr = stack.enter_context(self.hr.on_disk())
            lr = stack.enter_context(self.lr.on_disk()) if self.lr else None
            return load_pair(Pair(self.hr.name, hr, lr), scale, lr_mode)


def _images(path: Path) -> list[ImageFile]:
    if path.is_dir():
        return [ImageFile(image) for image in list_images(path)]
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}): an input is a folder of images or a zip "
            "of them; check the path"
        ) from error
    return [
        ImageFile(path, name)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
        and not name.endswith("/")  # a folder
        # macOS puts hidden companions of every file into its zips.
        and not any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)
    ]


def _with_lr(hr_path: Path, lr_path: Path, scale: int) -> list[Photograph]:
    lrs: dict[str, ImageFile] = {}
    for lr in _images(lr_path):
        if (other := lrs.setdefault(Path(lr.name).stem, lr)) is not lr:
            raise InputError(
                f"{lr} and {other} are LR images of one name, and which belongs to "
                "which HR image is not known; give each folder as an --input of its own"
            )
    photographs = []
    for hr in _images(hr_path):
        names = lr_names(Path(hr.name).stem, scale)
        lr = next((lrs[name] for name in names if name in lrs), None)
        if lr is None:
            raise InputError(
                f"{hr} has no LR image in {lr_path}: it must be named "
                f"{' or '.join(names)}; add it or leave out --lr_input"
            )
        photographs.append(Photograph(hr, lr))
    return photographs


def _without_lr(path: Path, scale: int, given: Set[Path]) -> list[Photograph]:
    if not path.is_dir():
        images = _images(path)
        for image in images:
            if Path(image.name).stem.upper().endswith("_LR"):
                raise InputError(
                    f"{image}: an LR image, and in a zip all are taken as HR images; "
                    "unpack the zip, or give LR images apart, as --lr_input"
                )
        return [Photograph(image, None) for image in images]
    pairs = find_pairs(path, scale).pairs
    if pairs[0].lr is None:
        _check_below(pairs[0].hr.parent, given)
    return [
        Photograph(ImageFile(pair.hr), None if pair.lr is None else ImageFile(pair.lr))
        for pair in pairs
    ]


def _check_below(path: Path, given: Set[Path]) -> None:
    """Refuse to leave out images in folders within: a zip's are all taken."""
    for file in path.glob("*/**/*"):
        relative = file.relative_to(path)
        if any(path / folder in given for folder in relative.parents[:-1]):
            continue  # an input of its own
        parts = relative.parts
        # Hidden parts do not count, nor the tiles of what `prepare` has not finished.
        if any(part.startswith(".") or part.endswith(PARTIAL) for part in parts):
            continue
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            raise InputError(
                f"{file.parent} holds images too, but only those directly in {path} "
                "would be taken: give each folder as an --input of its own, or move it "
                "away"
            )


def find_photographs(
    inputs: Sequence[Path], lr_inputs: Sequence[Path], scale: int
) -> list[Photograph]:
    """Find the photographs of all inputs.

    A folder may have any layout that `pairs.find_pairs` knows; of a zip all images are
    taken, as HR images, in whatever folders they lie. LR images given apart
    are named as their HR image, with `x4`, `X4` or, for `_HR`, `_LR` at the end.

    Args:
        inputs: Folders or zips of HR images, at least one.
        lr_inputs: For each of them, a folder or zip of its LR images; or empty.
        scale: The factor, an integer >= 1.

    Returns:
        The photographs, in the order of the inputs, at least one.

    Raises:
        InputError: An input that cannot be read, holds no images or is given twice; a
            folder of HR images with more in folders within; an `_LR` image in a zip; an
            HR image without its LR image, or two LR images of one name.
    """
    check_scale(scale)
    if lr_inputs and len(lr_inputs) != len(inputs):
        raise InputError(
            f"there are {len(inputs)} inputs but {len(lr_inputs)} of LR images: each "
            "input needs its own; repeat --lr_input as often as --input"
        )
    photographs: list[Photograph] = []
    seen: set[Photograph] = set()
    folders = {given.resolve() for given in inputs}
    for i, given in enumerate(inputs):
        path = given.resolve()
        lr_path = lr_inputs[i].resolve() if lr_inputs else None
        if lr_path is not None:
            found = _with_lr(path, lr_path, scale)
        else:
            found = _without_lr(path, scale, folders)
        if not found:
            raise InputError(
                f"{given} holds no images: it must hold files ending in "
                f"{', '.join(IMAGE_SUFFIXES)}; check the path"
            )
        if not seen.isdisjoint(found):
            raise InputError(f"{given} is given twice: give each input once")
        seen.update(found)
        photographs += found
    return photographs
