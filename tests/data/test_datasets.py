import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.builders import Div2k
from lkdn_jax.data.datasets import open_tiles
from lkdn_jax.data.images import write_image
from lkdn_jax.data.prepare import Options, prepare
from lkdn_jax.errors import InputError

URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


def photographs(folder, n=3, h=60, w=84):
    rng = np.random.default_rng(n)
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for i in range(n):
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        write_image(folder / f"{i + 1:04d}.png", image)
        images.append(image)
    return images


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    images = photographs(folder / "raw")
    prepare([folder / "raw"], folder / "x4", Options(4, 48), workers=1)
    return folder / "x4", images


def test_a_prepared_dataset_is_decoded_once(prepared):
    folder, images = prepared
    seen = []
    tiles = open_tiles(str(folder), 4, 48, lambda *step: seen.append(step))
    # 60 is less than one and a half tiles, 84 is more.
    assert tiles.hr.shape == (6, 48, 48, 3)
    assert tiles.lr.shape == (6, 12, 12, 3)
    assert seen[0] == ("decoding", 0, 6)
    assert seen[-1] == ("decoding", 6, 6)
    for i, image in enumerate(images):
        lr = downscale(image, 4)
        np.testing.assert_array_equal(tiles.lr[2 * i], lr[1:13, :12])
        np.testing.assert_array_equal(tiles.hr[2 * i], image[4:52, :48])
        np.testing.assert_array_equal(tiles.hr[2 * i + 1], image[4:52, 36:])
    seen.clear()
    again = open_tiles(str(folder), 4, 48, lambda *step: seen.append(step))
    assert not seen
    np.testing.assert_array_equal(again.hr, tiles.hr)
    assert {p.name for p in (folder / "decoded_t48").iterdir()} == {"lr.npy", "hr.npy"}
    assert not (folder / "decoded_t48.partial").exists()


def test_a_dataset_is_decoded_elsewhere_and_left_as_it_is(
    prepared, tmp_path, monkeypatch
):
    folder, _ = prepared
    before = sorted(folder.rglob("*"))
    tiles = open_tiles(str(folder), 4, 32, decoded_dir=str(tmp_path))
    assert sorted(folder.rglob("*")) == before
    # Two sources of one name do not meet.
    hr = tmp_path / folder.resolve().relative_to("/") / "decoded_t32" / "hr.npy"
    np.testing.assert_array_equal(np.load(hr), tiles.hr)
    seen = []
    monkeypatch.setenv("HOME", str(tmp_path))
    again = open_tiles(
        str(folder), 4, 32, lambda *step: seen.append(step), decoded_dir="~"
    )
    assert not seen
    np.testing.assert_array_equal(again.hr, tiles.hr)


def test_shards_end_where_the_next_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("lkdn_jax.data.builders._TILES_PER_SHARD", 4)
    images = photographs(tmp_path / "raw", 5)  # two tiles each: 4, 4 and 2
    prepare([tmp_path / "raw"], tmp_path / "x4", Options(4, 48), workers=1)
    tiles = open_tiles(str(tmp_path / "x4"), 4, 48)
    assert len(list((tmp_path / "x4").glob("*.array_record*"))) == 3
    assert tiles.hr.shape == (10, 48, 48, 3)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(tiles.hr[2 * i], image[4:52, :48])
        np.testing.assert_array_equal(tiles.hr[2 * i + 1], image[4:52, 36:])


def test_what_was_decoded_of_another_dataset_is_not_taken(tmp_path):
    images = {}
    for name in ("a", "b"):
        images[name] = photographs(tmp_path / name, 2 if name == "a" else 3, 48, 48)
        prepare([tmp_path / name], tmp_path / f"{name}_x4", Options(4, 48), workers=1)
    folder, other = tmp_path / "a_x4", tmp_path / "b_x4"
    np.testing.assert_array_equal(open_tiles(str(folder), 4, 48).hr, images["a"])
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    for file in other.iterdir():
        shutil.copy(file, folder)
    np.testing.assert_array_equal(open_tiles(str(folder), 4, 48).hr, images["b"])
    # A copy takes along what was decoded.
    seen = []
    shutil.copytree(folder, tmp_path / "copy")
    copied = open_tiles(str(tmp_path / "copy"), 4, 48, lambda *step: seen.append(step))
    np.testing.assert_array_equal(copied.hr, images["b"])
    assert not seen


@pytest.mark.parametrize("length", [0, 50, 5000])
def test_what_was_decoded_and_is_damaged_is_decoded_again(tmp_path, length):
    images = photographs(tmp_path / "raw", 2, 48, 48)
    prepare([tmp_path / "raw"], tmp_path / "x4", Options(4, 48), workers=1)
    open_tiles(str(tmp_path / "x4"), 4, 48)
    hr = tmp_path / "x4" / "decoded_t48" / "hr.npy"
    hr.write_bytes(hr.read_bytes()[:length])
    np.testing.assert_array_equal(open_tiles(str(tmp_path / "x4"), 4, 48).hr, images)


def test_smaller_tiles_are_cut_from_larger_ones(prepared):
    folder, images = prepared
    tiles = open_tiles(str(folder), 4, 24)
    assert tiles.hr.shape == (6 * 4, 24, 24, 3)
    np.testing.assert_array_equal(tiles.hr[3], images[0][28:52, 24:48])


def test_processes_that_decode_at_once_agree(prepared):
    folder, _ = prepared
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(open_tiles(str(folder), 4, 36)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tiles.hr.shape for tiles in opened] == [(6 * 1, 36, 36, 3)] * 4
    assert not list(folder.glob("*.partial"))


def test_an_interrupted_decoding_starts_again(prepared):
    folder, _ = prepared
    rest = folder / "decoded_t44.partial"
    rest.mkdir()
    (rest / "hr.npy").write_bytes(b"x" * 10**6)
    tiles = open_tiles(str(folder), 4, 44)
    assert (rest.exists(), tiles.hr.shape) == (False, (6, 44, 44, 3))


def test_the_dataset_is_one_of_tfds(prepared):
    builder = tfds.builder_from_directory(prepared[0])
    assert builder.info.metadata["scale"] == 4
    assert builder.info.splits["train"].num_examples == 6
    example = builder.as_data_source(split="train")[5]
    assert example["name"] == b"0003.png"
    np.testing.assert_array_equal(example["hr"], prepared[1][2][4:52, 36:])


@pytest.mark.parametrize(
    ("scale", "tile", "message"),
    [
        (2, 48, "has scale 4 but 2 is asked for"),
        (4, 96, "has tiles of 48 but 96 is asked for.*ask for 48, or .*--tile 96"),
        (4, 52, "has tiles of 48 but 52 is asked for"),
        (4, 50, "tile 50 must be a positive multiple of scale 4: use 48"),
        (4, -1, "tile -1 must be a positive multiple of scale 4: use 480"),
        (0, 48, "scale 0"),
    ],
)
def test_another_scale_or_tile(prepared, scale, tile, message):
    with pytest.raises(InputError, match=message):
        open_tiles(str(prepared[0]), scale, tile)


def test_sources_that_are_no_datasets(tmp_path):
    raw, empty, broken = (tmp_path / name for name in ("raw", "empty", "broken"))
    photographs(raw)
    spaced = tmp_path / "my photos"
    photographs(spaced)
    empty.mkdir()
    broken.mkdir()
    (broken / "dataset_info.json").write_text("{")
    (tmp_path / "half.partial").mkdir()
    command = (
        f"python -m lkdn_jax.data.prepare --input {raw} --output {raw}_x4 "
        "--scale 4 --tile 48"
    )
    for source, message in {
        raw: command,
        spaced: f"--input '{spaced}' --output '{spaced}_x4' --scale 4 ",
        empty: "is empty",
        broken: "is no dataset of lkdn_jax.data.prepare",
        tmp_path / "missing": "does not exist",
        tmp_path / "half": "is not finished",
        "tfds:mnist": "only div2k",
        "tfds:div2k/bicubic_x2": "has scale 2 but 4",
    }.items():
        with pytest.raises(InputError) as caught:
            open_tiles(str(source), 4, 48)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_dataset_cut_where_a_record_begins(tmp_path):
    photographs(tmp_path / "raw", 6, 96, 96)
    prepare([tmp_path / "raw"], tmp_path / "x4", Options(4, 96), workers=1)
    (records,) = (tmp_path / "x4").glob("*.array_record*")
    content = records.read_bytes()
    assert len(content) > 65536  # of a block
    records.write_bytes(content[:65536])
    with pytest.raises(InputError, match=r"x4 .*records are missing"):
        open_tiles(str(tmp_path / "x4"), 4, 96)


def test_a_full_disk_while_decoding(prepared, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lkdn_jax.data.datasets.write_tiles", full)
    with pytest.raises(
        InputError, match=r"cannot write .*decoded_t40: No space left"
    ) as e:
        open_tiles(str(prepared[0]), 4, 40)
    assert str(e.value).endswith("or elsewhere: --data.decoded_dir=DIR")
    assert not (prepared[0] / "decoded_t40").exists()


@pytest.fixture
def div2k(tmp_path, monkeypatch):
    """Put small zips in DIV2K's layout where those downloaded by hand are found."""
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    infos = {}
    images = {}
    for split in ("train", "valid"):
        images[split] = photographs(tmp_path / split, 3 if split == "train" else 2)
        name, lr_name = f"DIV2K_{split}_HR", f"DIV2K_{split}_LR_bicubic"
        zips = manual / f"{name}.zip", manual / f"{lr_name}_X4.zip"
        with zipfile.ZipFile(zips[0], "w") as hrs, zipfile.ZipFile(zips[1], "w") as lrs:
            for i, image in enumerate(images[split]):
                lr = tmp_path / "lr.png"
                write_image(lr, downscale(image, 4))
                hrs.write(
                    tmp_path / split / f"{i + 1:04d}.png", f"{name}/{i + 1:04d}.png"
                )
                lrs.write(lr, f"{lr_name}/X4/{i + 1:04d}x4.png")
        infos |= {URL + path.name: compute_url_info(path) for path in zips}
    monkeypatch.setattr(Div2k, "url_infos", infos)
    return tmp_path / "data", images


def test_div2k_without_tensorflow(div2k):
    data_dir, images = div2k
    tiles = open_tiles("tfds:div2k", 4, 48, data_dir=str(data_dir))
    assert tiles.hr.shape == (6, 48, 48, 3)
    np.testing.assert_array_equal(tiles.hr[5], images["train"][2][4:52, 36:])
    np.testing.assert_array_equal(
        tiles.lr[5], downscale(images["train"][2], 4)[1:13, 9:]
    )
    # The catalogue's plain name reads what was prepared.
    builder = tfds.builder("div2k/bicubic_x4", data_dir=data_dir)
    source = builder.as_data_source(split="validation")
    assert len(source) == 2
    found = {example["hr"].tobytes() for example in source}
    assert found == {image.tobytes() for image in images["valid"]}
    # Prepared once: the zips are not needed again.
    for path in (data_dir / "downloads" / "manual").iterdir():
        path.unlink()
    again = open_tiles("tfds:div2k/bicubic_x4", 4, 48, data_dir=str(data_dir))
    np.testing.assert_array_equal(again.hr, tiles.hr)


def test_shards_of_div2k_hold_all_images(div2k, monkeypatch):
    monkeypatch.setattr("lkdn_jax.data.builders._DIV2K_IMAGES_PER_SHARD", 2)
    data_dir, images = div2k
    tiles = open_tiles("tfds:div2k", 4, 48, data_dir=str(data_dir))
    assert tiles.hr.shape == (6, 48, 48, 3)
    for i, image in enumerate(images["train"]):
        np.testing.assert_array_equal(tiles.hr[2 * i], image[4:52, :48])
        np.testing.assert_array_equal(
            tiles.lr[2 * i + 1], downscale(image, 4)[1:13, 9:]
        )


def test_div2k_images_smaller_than_a_tile(div2k):
    with pytest.raises(InputError, match=r"image \d is 60x84 .* at most 60"):
        open_tiles("tfds:div2k", 4, 64, data_dir=str(div2k[0]))


def test_a_damaged_download_is_refused(div2k):
    data_dir, _ = div2k
    damaged = data_dir / "downloads" / "manual" / "DIV2K_train_HR.zip"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"wrong checksum.*DIV2K_train_HR\.zip"):
        open_tiles("tfds:div2k", 4, 48, data_dir=str(data_dir))
    assert not (data_dir / "div2k" / "bicubic_x4" / "2.0.0").exists()


def test_of_several_one_decodes_and_the_others_wait(tmp_path):
    photographs(tmp_path / "raw", 4)
    prepare([tmp_path / "raw"], tmp_path / "x4", Options(4, 48), workers=1)
    seen = []

    def decode(_):
        return open_tiles(str(tmp_path / "x4"), 4, 48, lambda *step: seen.append(step))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(decode, range(4)))
    assert seen.count(("decoding", 0, 8)) == 1
    for tiles in found:
        np.testing.assert_array_equal(tiles.hr, found[0].hr)


def test_div2k_is_of_the_scale_that_is_asked_for(tmp_path, monkeypatch):
    names = []

    def stop(builder, **_):
        names.append(builder.builder_config.name)
        raise OSError("no network")

    monkeypatch.setattr("lkdn_jax.data.datasets.write_dataset", stop)
    for scale in (2, 3, 4):
        with pytest.raises(InputError, match="no network"):
            open_tiles("tfds:div2k", scale, 12 * scale, data_dir=str(tmp_path))
    assert names == ["bicubic_x2", "bicubic_x3", "bicubic_x4"]
