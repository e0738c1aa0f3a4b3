"""TFDS builders that need no TensorFlow.

Both write shard by shard. TFDS's usual way, which shuffles while it writes, needs
TensorFlow as soon as a dataset exceeds a gigabyte.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf.json_format import Error as JsonError
from tensorflow_datasets.datasets.div2k import div2k_dataset_builder

from lkdn_jax.errors import InputError

Examples = Iterator[tuple[int, dict[str, Any]]]
Shards = Mapping[str, Sequence[Callable[[], Examples]]]

# TFDS holds the examples of a shard until it is written.
_DIV2K_IMAGES_PER_SHARD = 16
_TILES_PER_SHARD = 256


def write_dataset(
    builder: tfds.core.DatasetBuilder, *, manual: str | None = None
) -> None:
    """Prepare a dataset as array_record files.

    Args:
        builder: What to prepare; nothing happens if that was done before.
        manual: Folder of archives downloaded by hand, used in place of a download.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False, manual_dir=manual)
    builder.download_and_prepare(file_format="array_record", download_config=config)


class Div2k(
    tfds.core.ShardBasedBuilder, div2k_dataset_builder.Builder, skip_registration=True
):
    """The catalogue's `div2k`, read from the downloaded zips without unpacking them.

    Configs, features, checksums and the place on disk are the catalogue's, so the plain
    name `div2k/bicubic_x4` reads the result.
    """

    name = "div2k"
    pkg_dir_path = div2k_dataset_builder.Builder._get_pkg_dir_path()
    url_infos = div2k_dataset_builder.Builder.url_infos

    @property
    def urls(self) -> dict[str, str]:
        """The archives of this config, by what they hold."""
        config: Any = self.builder_config
        return config.download_urls

    def _shard_iterators_per_split(self, dl_manager: Any) -> Shards:
        zips = dl_manager.download(self.urls)
        return {
            split: self._shards(
                Path(zips[f"{prefix}_lr_url"]), zips[f"{prefix}_hr_url"]
            )
            for split, prefix in (("train", "train"), ("validation", "valid"))
        }

    def _shards(self, lr_zip: Path, hr_zip: Path) -> list[Callable[[], Examples]]:
        with zipfile.ZipFile(lr_zip) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith(".png"))
        return [
            partial(
                _div2k_pairs, lr_zip, hr_zip, names[i : i + _DIV2K_IMAGES_PER_SHARD]
            )
            for i in range(0, len(names), _DIV2K_IMAGES_PER_SHARD)
        ]


def _div2k_pairs(lr_zip: Path, hr_zip: Path, names: list[str]) -> Examples:
    with zipfile.ZipFile(lr_zip) as lrs, zipfile.ZipFile(hr_zip) as hrs:
        hr_names = {Path(name).name: name for name in hrs.namelist()}
        for i, name in enumerate(names):
            # `0001x4.png`, `0001x4w1.png`: the number names the HR image.
            hr = hrs.read(hr_names[f"{Path(name).name[:4]}.png"])
            yield i, {"lr": lrs.read(name), "hr": hr}


class PreparedTiles(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Tiles of photographs, as `lkdn_jax.data.prepare` makes them."""

    name = "lkdn_tiles"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        examples: Sequence[dict[str, Any]],
        metadata: dict[str, Any],
        progress: Callable[[int], None],
        **kwargs: Any,
    ) -> None:
        """Create a builder.

        Args:
            examples: `name` and the paths of the encoded `lr` and `hr` of every tile.
            metadata: what to store with the dataset, `scale` and `tile` among it.
            progress: a function of the number of tiles written.
            **kwargs: TFDS's own.
        """
        self._examples, self._metadata = examples, metadata
        self._progress = progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Aligned LR and HR tiles of photographs.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "lr": tfds.features.Image(),
                    "hr": tfds.features.Image(),
                }
            ),
            metadata=tfds.core.MetadataDict(self._metadata),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Shards:
        del dl_manager
        starts = range(0, len(self._examples), _TILES_PER_SHARD)
        return {"train": [partial(self._shard, start) for start in starts]}

    def _shard(self, start: int) -> Examples:
        stop = min(start + _TILES_PER_SHARD, len(self._examples))
        for i in range(start, stop):
            yield i, self._examples[i]
            self._progress(i + 1)


def open_prepared(
    folder: Path,
) -> tuple[tfds.core.DatasetBuilder, dict[str, Any], int]:
    """Open a dataset of `PreparedTiles`.

    Args:
        folder: The dataset's folder, whatever its name.

    Returns:
        The dataset, its metadata and its number of tiles.

    Raises:
        InputError: There is none.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        metadata = dict(builder.info.metadata or {})
        if builder.name != PreparedTiles.name or not {"scale", "tile"} <= {*metadata}:
            raise ValueError("it was made by something else")
        return builder, metadata, builder.info.splits["train"].num_examples
    except (OSError, ValueError, KeyError, AttributeError, JsonError) as error:
        raise InputError(
            f"{folder} is no dataset of lkdn_jax.data.prepare "
            f"({' '.join(str(error).split())}): it must be one, unchanged; prepare the "
            "photographs again"
        ) from error
