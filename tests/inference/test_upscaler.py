import doctest
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from lkdn_jax import LKDN, InputError, Upscaler, load, optimized_model, save
from lkdn_jax.data.images import to_uint8
from lkdn_jax.data.pairs import find_pairs, load_pair
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y
from lkdn_jax.inference import program
from lkdn_jax.inference import upscaler as module


@pytest.fixture
def weights(save_weights):
    return save_weights(LKDN(scale=2, features=6, num_blocks=2))


@pytest.fixture(scope="module")
def one_for_all(init):
    model = LKDN(scale=2, features=6, num_blocks=2)
    return Upscaler((model, init(model)["params"]))


def image(h, w, *channels, dtype=np.uint8):
    rng = np.random.default_rng(0)
    if jnp.issubdtype(dtype, jnp.floating):
        return rng.random((h, w, *channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (h, w, *channels), dtype)


def test_doctest():
    result = doctest.testmod(module)
    assert result.attempted >= 6
    assert result.failed == 0


@pytest.mark.parametrize(
    ("h", "w", "tile"), [(90, 71, 32), (70, 200, 45), (33, 165, 64)]
)
@pytest.mark.parametrize("devices", [1, 3])
def test_the_tile_size_does_not_matter(weights, h, w, tile, devices):
    lr = image(h, w, 3, dtype=np.float32)
    whole = Upscaler(weights, tile=500)
    tiled = Upscaler(weights, tile=tile, devices=jax.local_devices()[:1] * devices)
    assert tiled.count_tiles(h, w) > 1
    np.testing.assert_allclose(tiled(lr), whole(lr), atol=1e-5)


@pytest.mark.reference
def test_tiled_equals_whole_with_the_published_network(reference):
    path = reference / "weights" / "LKDN_x4.pth"
    lr = image(480, 640, 3, dtype=np.float32)
    whole = Upscaler(path)(lr)
    for tile, count in ((440, 2), (331, 2), (98, 15)):  # the last below the context
        tiled = Upscaler(path, tile=tile)
        assert tiled.count_tiles(480, 640) == count
        np.testing.assert_allclose(tiled(lr), whole, atol=1e-5)


OUT_OF_MEMORY = """
import resource, sys
import numpy as np
from lkdn_jax import Upscaler
lr = np.random.default_rng(0).integers(0, 255, (1000, 1200, 3), np.uint8)
upscaler, done = Upscaler(sys.argv[1], tile=2000), []
upscaler(lr[:64, :64])
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 400 * 2**20,) * 2)
np.save(sys.argv[2], upscaler(lr))
print(upscaler.tile)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_AS")
def test_halves_the_tile_when_memory_runs_out(tmp_path, save_weights):
    weights = save_weights(LKDN(scale=2, features=32, num_blocks=1))
    command = [sys.executable, "-c", OUT_OF_MEMORY, weights, tmp_path / "sr.npy"]
    run = subprocess.run(
        [str(part) for part in command],
        # jemalloc would take more of the address space than it uses.
        env=os.environ | {"JAX_PLATFORMS": "cpu", "LD_PRELOAD": ""},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 32 <= int(run.stdout) < 1000
    lr = np.random.default_rng(0).integers(0, 255, (1000, 1200, 3), np.uint8)
    difference = Upscaler(weights)(lr).astype(int) - np.load(tmp_path / "sr.npy")
    assert np.abs(difference).max() <= 1


def test_asks_for_memory_before_a_run(weights, monkeypatch):
    # What Eigen is refused ends the process, now and then.
    def refuse(model, h, w, platform):
        assert (model.scale, platform) == (2, upscaler._devices[0].platform)
        if h * w > 100 * 100:
            raise MemoryError

    monkeypatch.setattr(program, "check_memory", refuse)
    upscaler, lr = Upscaler(weights), image(90, 200, 3)
    sr = upscaler(lr).astype(int)
    assert 32 <= upscaler.tile < 100
    monkeypatch.undo()
    assert np.abs(sr - Upscaler(weights)(lr)).max() <= 1


def test_takes_no_shape_again_that_did_not_fit(weights, monkeypatch):
    upscaler, limit = Upscaler(weights, context=15), 68 * 68

    def refuse(_, h, w, *__):
        if h * w >= limit:
            raise MemoryError

    upscaler(image(68, 68, 3))
    monkeypatch.setattr(program, "check_memory", refuse)
    upscaler(image(158, 158, 3))  # windows of 62: filled up to 68, none would fit
    assert upscaler.tile == 32


def test_what_is_padded_is_tried_alone_first(weights, monkeypatch):
    upscaler = Upscaler(weights, context=4)

    def refuse(_, h, w, *__):
        if h * w > 100 * 100:
            raise MemoryError

    upscaler(image(200, 200, 3))
    monkeypatch.setattr(program, "check_memory", refuse)
    upscaler(image(90, 90, 3))
    assert upscaler.tile == module.TILE


def test_a_tile_halved_meanwhile_stays(weights, monkeypatch):
    upscaler = Upscaler(weights)

    def halve(*_):  # as another thread may
        upscaler.tile = 64

    monkeypatch.setattr(upscaler, "_in_tiles", halve)
    upscaler(image(9, 8, 3))
    assert upscaler.tile == 64


@pytest.mark.parametrize("constant", [True, False])
def test_says_so_when_alpha_does_not_fit(weights, monkeypatch, constant):
    lr = image(12, 9, 4)
    if constant:
        lr[..., 3] = 7
    upscaler = Upscaler(weights)
    where, name = (np, "full") if constant else (module, "keep_flat")
    monkeypatch.setattr(where, name, Mock(side_effect=MemoryError))
    with pytest.raises(InputError, match="9×12: out of memory for one of 18×24"):
        upscaler(lr)


def test_says_so_when_the_output_does_not_fit(weights):
    lr = np.broadcast_to(np.zeros(3, np.uint8), (10**7, 10**8, 3))
    with pytest.raises(InputError, match="out of memory for one of 200000000×20000000"):
        Upscaler(weights)(lr)


def test_says_so_when_no_tile_fits(weights, monkeypatch):
    upscaler = Upscaler(weights)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    monkeypatch.setattr(upscaler, "_program", Mock(side_effect=full))
    with pytest.raises(InputError, match="90×40: out of memory even in small tiles"):
        upscaler(image(40, 90, 3))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.float32, np.float64, jnp.bfloat16]
)
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (4,)])
def test_keeps_dtype_and_channels(one_for_all, dtype, shape):
    lr = image(12, 9, *shape, dtype=dtype)
    sr = one_for_all(lr)
    assert sr.shape == (24, 18, *shape)
    assert sr.dtype == dtype


def test_grey_and_alpha_are_upscaled_as_colours_are(weights):
    upscaler, lr = Upscaler(weights), image(20, 17, 4, dtype=np.float32)
    grey = upscaler(lr[..., 0])
    of_colour = upscaler(lr[..., :1].repeat(3, axis=-1)).mean(axis=-1)
    np.testing.assert_allclose(grey, of_colour, atol=1e-6)
    np.testing.assert_allclose(upscaler(lr[..., :2])[..., 0], grey, atol=1e-6)
    with_alpha = upscaler(lr)
    np.testing.assert_allclose(with_alpha[..., :3], upscaler(lr[..., :3]), atol=1e-6)
    of_alpha = upscaler(lr[..., 3]).clip(0, 1)
    np.testing.assert_allclose(with_alpha[..., 3].clip(0, 1), of_alpha, atol=1e-6)


def test_integers_are_the_rounded_floats(weights):
    upscaler, lr = Upscaler(weights), image(20, 17, 3)
    exact = upscaler(lr / np.float32(255))
    assert np.abs(upscaler(lr).astype(int) - to_uint8(exact)).max() <= 1
    deep = upscaler(lr.astype(np.uint16) * 257)
    assert np.abs(deep / 65535 - exact.clip(0, 1)).max() < 1e-4


def test_batches_and_pil_images(weights):
    upscaler, lr = Upscaler(weights), image(10, 8, 3)
    sr = upscaler(lr)
    np.testing.assert_array_equal(upscaler(np.stack([lr, lr])), np.stack([sr, sr]))
    pil = upscaler(PIL.Image.fromarray(lr))
    assert pil.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(pil), sr)


def test_one_shape_compiles_once_and_serves_smaller_ones(weights):
    upscaler = Upscaler(weights)
    upscaler(image(40, 40, 3))
    first = upscaler(image(38, 39, 3))  # compiles for any size within 40 × 40
    with jax.no_tracing():
        upscaler(image(40, 40, 3))
        upscaler(image(37, 40, 3))
        np.testing.assert_array_equal(upscaler(image(38, 39, 3)), first)
    alone = Upscaler(weights)(image(38, 39, 3))
    assert np.abs(first.astype(int) - alone).max() <= 1


def test_a_size_that_comes_often_gets_a_program_of_its_own(weights):
    upscaler, lr = Upscaler(weights), image(20, 30, 3)
    upscaler._program._compilation = 6050
    upscaler(image(60, 60, 3))
    programs, taken = upscaler._program._programs, []
    results = []
    for _ in range(4):  # each loses 60 · 60 · 65/64 − 20 · 30 = 3056 pixels
        results.append(upscaler(lr).astype(int))
        taken.append(list(programs)[-1][:3])
    assert taken == [(60, 60, False)] + [(20, 30, True)] * 3
    for sr in results:
        assert np.abs(sr - Upscaler(weights)(lr)).max() <= 1
    upscaler(image(21, 30, 3))  # another size has lost nothing yet
    assert list(programs)[-1][:3] == (60, 60, False)


def test_a_program_that_was_dropped_must_be_earned_again(weights, monkeypatch):
    monkeypatch.setattr(program, "_PROGRAMS", 2)
    upscaler, lr = Upscaler(weights), image(20, 30, 3)
    upscaler._program._compilation = 6050
    for h, w in ((60, 60), (20, 30), (20, 30), (60, 60), (70, 70)):
        upscaler(image(h, w, 3))  # the last drops the exact one of 20 × 30
    programs = upscaler._program._programs
    assert (20, 30, True) not in [key[:3] for key in programs]
    upscaler(lr)
    assert list(programs)[-1][:3] == (60, 60, False)


def test_takes_the_smallest_shape_that_fits(weights):
    upscaler = Upscaler(weights)
    for h, w in ((10, 100), (40, 20), (8, 18)):
        upscaler(image(h, w, 3))
    assert list(upscaler._program._programs)[-1][:3] == (40, 20, False)


def test_transparent_pixels_do_not_darken_the_edge(weights):
    lr = np.full((24, 24, 4), 200, np.uint8)
    lr[:, 12:] = 0  # transparent, and black as most programs write it
    opaque = Upscaler(weights)(lr[..., :3] * 0 + np.uint8(200))
    sr = Upscaler(weights)(lr)
    np.testing.assert_array_equal(sr[..., :3], opaque)


@pytest.mark.parametrize("tile", [32, 640])
def test_self_ensemble_is_the_mean_of_eight(weights, tile):
    lr = image(60, 43, 3, dtype=np.float32)
    plain = Upscaler(weights)
    turned = [
        np.rot90(plain(np.rot90(lr[:, ::way], i)), -i)[:, ::way]
        for i in range(4)
        for way in (1, -1)
    ]
    ensemble = Upscaler(weights, self_ensemble=True, tile=tile)
    np.testing.assert_allclose(ensemble(lr), np.mean(turned, axis=0), atol=1e-5)


@pytest.mark.reference
def test_self_ensemble_gains(reference):
    path = reference / "weights" / "LKDN-S_x4.pth"
    plain, ensemble = Upscaler(path), Upscaler(path, self_ensemble=True)
    gains = []
    for pair in find_pairs(reference / "benchmarks" / "Set5", 4).pairs:
        lr, hr = load_pair(pair, 4, "auto")[:2]
        lr = lr / np.float32(255)  # as floats, they share a program
        results = (to_uint8(upscaler(lr)) for upscaler in (plain, ensemble))
        gains.append(np.diff([psnr(rgb_to_y(sr), rgb_to_y(hr), 4) for sr in results]))
    assert np.mean(gains) >= 0.05


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 3, 5), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((0, 3, 3)),
        np.zeros((4, 4), np.int64),
        PIL.Image.new("RGB", (0, 5)),
    ],
)
def test_refuses_what_is_no_image(weights, bad):
    with pytest.raises(InputError, match="1 to 4 channels, uint8, uint16"):
        Upscaler(weights)(bad)


@pytest.mark.skipif(
    np.dtype(np.longdouble).itemsize == 8, reason="here it is float64 by another name"
)
def test_refuses_longdouble(weights):
    with pytest.raises(InputError, match="of at most 64 bits"):
        Upscaler(weights)(np.zeros((4, 4), np.longdouble))


@pytest.mark.parametrize("value", [255.0, np.nan, -3.0, -1.0, 2.0])
def test_refuses_floats_of_another_range(weights, value):
    lr = np.full((4, 4, 3), 0.5, np.float32)
    lr[2, 1] = value
    with pytest.raises(InputError, match=r"give values in \[0, 1\]"):
        Upscaler(weights)(lr)
    lr[2, 1] = np.clip(value, -0.5, 1.5) if np.isfinite(value) else 0
    assert np.isfinite(Upscaler(weights)(lr)).all()


def test_refuses_deep_grey_with_a_transparent_value(weights):
    deep = PIL.Image.fromarray(image(9, 8, dtype=np.uint16))
    assert Upscaler(weights)(deep).mode == "I;16"
    deep.info["transparency"] = 5
    with pytest.raises(InputError, match=r"give an array \[h, w, 2\]"):
        Upscaler(weights)(deep)


def test_any_byte_order(weights):
    upscaler, lr = Upscaler(weights), image(9, 8, 3, dtype=np.uint16)
    np.testing.assert_array_equal(upscaler(lr.astype(">u2")), upscaler(lr))


def test_takes_a_network_and_its_parameters(weights):
    model, params = load(weights)
    lr = image(20, 17, 3)
    np.testing.assert_array_equal(Upscaler((model, params))(lr), Upscaler(weights)(lr))
    with pytest.raises(InputError, match="do not fit the network"):
        Upscaler((model.clone(features=8), params))
    with pytest.raises(InputError, match="do not fit the network"):
        Upscaler((optimized_model(model), params))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_parameters_that_are_not_finite(weights, tmp_path, value):
    model, params = load(weights)
    params["c1"]["bias"] = params["c1"]["bias"].at[3].set(value)
    with pytest.raises(InputError, match=r"^parameters that are not finite; train ag"):
        Upscaler((model, params))
    save(tmp_path / "bad.msgpack", model, params)
    with pytest.raises(InputError, match=r"bad\.msgpack: parameters that are not fini"):
        Upscaler(tmp_path / "bad.msgpack")


@pytest.mark.parametrize("other", [None, [], {}, (), (1, 2, 3), ({}, LKDN())])
def test_refuses_what_are_no_weights(other):
    with pytest.raises(InputError, match="give a file or a tuple"):
        Upscaler(other)


def test_refuses_a_bad_tile_or_context(weights):
    with pytest.raises(InputError, match="tile 8: must be at least 32"):
        Upscaler(weights, tile=8)
    with pytest.raises(InputError, match="context -1: must not be negative"):
        Upscaler(weights, context=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 64.5}, "tile 64.5: must be a whole number"),
        ({"context": "32"}, "context '32': must be a whole number"),
        ({"dtype": "float99"}, "dtype 'float99': must be one of float32, bfloat16"),
        ({"dtype": np.int32}, "must be one of float32, bfloat16"),
        ({"dtype": jnp.float16}, "must be one of float32, bfloat16"),
        ({"devices": []}, r"devices \[\]: give devices of one kind"),
        ({"devices": "cpu"}, "give devices of one kind"),
    ],
)
def test_refuses_options_of_another_kind(weights, options, message):
    with pytest.raises(InputError, match=message):
        Upscaler(weights, **options)


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, np.dtype("f4")])
def test_takes_a_dtype_and_its_name(weights, dtype):
    sr = Upscaler(weights, dtype=dtype)(image(20, 17, 3))
    assert np.abs(sr.astype(int) - Upscaler(weights)(image(20, 17, 3))).max() <= 3


def test_threads_may_share_an_upscaler(weights):
    upscaler = Upscaler(weights, tile=32)
    images = [image(90 + i, 100 - i, 3) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(upscaler, images))
    for lr, sr in zip(images, together, strict=True):
        np.testing.assert_array_equal(sr, upscaler(lr))


def test_threads_may_share_few_programs(weights, monkeypatch):
    monkeypatch.setattr(program, "_PROGRAMS", 3)
    upscaler, alone = Upscaler(weights), Upscaler(weights)
    upscaler._program._compilation = 5000
    images = [image(h, w, 3) for h in (20, 33, 47) for w in (25, 38, 52)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(upscaler, images * 4))
    for lr, sr in zip(images * 4, together, strict=True):
        assert np.abs(sr.astype(int) - alone(lr)).max() <= 1
    assert len(upscaler._program._programs) <= 3


TWO_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from lkdn_jax import LKDN, Upscaler
from lkdn_jax.models.lkdn import draw_params

model = LKDN(scale=2, features=4, num_blocks=1)
network = model, draw_params(model)
lr = np.random.default_rng(0).random((90, 90, 3), np.float32)
upscaler = Upscaler(network, tile=32)
one = Upscaler(network, devices=jax.local_devices()[:1])
print(np.abs(upscaler(lr) - one(lr)).max() < 1e-5)
print(*(p._cache_size() for p in upscaler._program._programs.values()))
"""


def test_two_devices_share_an_image():
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "2"], done.stderr


def test_all_programs_are_counted(weights):
    upscaler = Upscaler(weights)
    for h, w in ((40, 40), (39, 39), (39, 40), (40, 40)):
        upscaler(image(h, w, 3))
    programs = upscaler._program._programs.values()
    assert [p._cache_size() for p in programs] == [1, 1]  # of the shape, and masked


def test_many_sizes_do_not_fill_the_memory(weights, monkeypatch):
    monkeypatch.setattr(program, "_PROGRAMS", 3)
    upscaler = Upscaler(weights)
    sizes = [(8 + 9 * i, 40 - 5 * i) for i in range(5)]
    first = [upscaler(image(h, w, 3)) for h, w in sizes]
    kept = dict(upscaler._program._programs)
    assert [key[:2] for key in kept] == sizes[2:]  # those used last
    for h, w in (sizes[4], sizes[2], sizes[3]):
        upscaler(image(h, w, 3))
    assert dict(upscaler._program._programs) == kept  # none was compiled again
    assert [p._cache_size() for p in kept.values()] == [1, 1, 1]
    for sr, (h, w) in zip(first, sizes, strict=True):
        np.testing.assert_array_equal(upscaler(image(h, w, 3)), sr)
    assert len(upscaler._program._programs) == 3


def test_sizes_that_were_dropped_leave_few_traces(weights, monkeypatch):
    monkeypatch.setattr(program, "_PROGRAMS", 2)

    def equations(height):
        gc.collect()
        found = (o for o in gc.get_objects() if type(o).__name__ == "JaxprEqn")
        shapes = (getattr(v.aval, "shape", ()) for eqn in found for v in eqn.outvars)
        return sum(height in shape for shape in shapes)

    upscaler, heights = Upscaler(weights), (101, 151, 211, 307)  # no other test's
    for height in heights:
        upscaler(image(height, 20, 3))
    first, *_, last = map(equations, heights)
    assert first < last / 3  # kept, they would be as many


def test_pixels_are_what_the_network_says(weights):
    model, params = load(weights)
    lr = image(20, 17, 3)
    exact = np.asarray(model.apply({"params": params}, lr[None] / np.float32(255)))[0]
    for dtype, values in ((np.uint8, lr), (np.uint16, lr.astype(np.uint16) * 257)):
        largest = np.iinfo(dtype).max
        wanted = exact.clip(0, 1).astype(np.float64) * largest
        error = Upscaler(weights)(values) - wanted
        # Rounded to the nearest; sums in another order change little of a level.
        assert np.abs(error).max() < 0.5 + 1e-5 * largest
        assert abs(error.mean()) < 0.05


def test_alpha_stays_in_its_range(weights):
    lr = image(20, 17, 4, dtype=np.float32)
    upscaler = Upscaler(weights)
    unclipped, alpha = upscaler(lr[..., 3]), upscaler(lr)[..., 3]
    assert unclipped.min() < 0 or unclipped.max() > 1
    np.testing.assert_allclose(alpha, unclipped.clip(0, 1), atol=1e-6)


def test_context_and_dtype_are_taken(weights):
    lr = image(80, 40, 3, dtype=np.float32)
    whole, tiled = Upscaler(weights)(lr), Upscaler(weights, tile=40, context=0)(lr)
    error = np.abs(tiled - whole).max(axis=(1, 2))
    assert error[79:81].max() > 1e-3  # at the seam
    assert error[:40].max() < 1e-5  # far from it
    half = Upscaler(weights, dtype=jnp.bfloat16)(lr)
    assert 1e-4 < np.abs(half - whole).max() < 0.1


def test_devices_take_turns(weights):
    upscaler = Upscaler(weights, tile=32, devices=jax.local_devices()[:1] * 3)
    upscaler._program = Mock(wraps=upscaler._program)
    upscaler(image(90, 200, 3))
    devices = [call.args[1] for call in upscaler._program.call_args_list]
    assert devices == [i % 3 for i in range(len(devices))]
    assert len(devices) > 3
