from unittest.mock import Mock

import jax
import numpy as np
import pytest

from lkdn_jax import LKDN, InputError
from lkdn_jax.evaluation import bucketing
from lkdn_jax.evaluation.bucketing import BucketedUpscaler, cover_sizes


def test_covers_all_sizes_with_few_shapes():
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(20, 200, (30, 2)).tolist()]
    for shapes in (1, 3, 4):
        cover = cover_sizes(sizes, shapes)
        assert len(cover) <= shapes
        for h, w in sizes:
            assert any(h <= height and w <= width for height, width in cover)


def test_wastes_nothing_it_need_not():
    sizes = [(10, 20), (10, 20), (21, 10), (100, 100), (20, 10)]
    assert {*cover_sizes(sizes, 4)} == {*sizes}
    assert cover_sizes(sizes, 3) == [(10, 20), (21, 10), (100, 100)]
    assert cover_sizes(sizes, 1) == [(100, 100)]


def test_many_sizes_take_no_minutes():
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(100, 2000, (400, 2)).tolist()]
    cover = cover_sizes(sizes, 4)  # 13 s when every union was tried at every step
    assert len(cover) == 4
    assert all(any(h <= H and w <= W for H, W in cover) for h, w in sizes)
    assert all(type(side) is int for shape in cover for side in shape)


def test_equals_each_image_alone_with_few_programs(init):
    model = LKDN(scale=2, features=8, num_blocks=2)
    variables = init(model)
    rng = np.random.default_rng(0)
    sizes = [(9, 12), (16, 11), (10, 12), (17, 11), (1, 1), (12, 12)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    upscaler = BucketedUpscaler(model, sizes, max_programs=2)
    assert len(upscaler.shapes) == 2
    for image in images:
        alone = jax.jit(model.apply)(variables, image[None] / np.float32(255))[0]
        ours = upscaler(variables["params"], image)
        np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="larger than all of"):
        upscaler(variables["params"], np.zeros((18, 3, 3), np.uint8))


def test_says_so_when_an_image_does_not_fit(init, monkeypatch):
    model = LKDN(scale=2, features=4, num_blocks=1)
    upscaler = BucketedUpscaler(model, [(10, 10)])
    monkeypatch.setattr(bucketing, "check_memory", Mock(side_effect=MemoryError))
    with pytest.raises(InputError, match="image of 3×4 LR pixels: out of memory"):
        upscaler(init(model)["params"], np.zeros((3, 4, 3), np.uint8))


def test_compiles_one_program_a_shape(init):
    compilations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(duration)

    model = LKDN(scale=2, features=4, num_blocks=1)
    params = init(model)["params"]
    rng = np.random.default_rng(1)
    sizes = [tuple(size) for size in rng.integers(5, 40, (14, 2)).tolist()]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        upscaler = BucketedUpscaler(model, sizes)
        for size in sizes:
            upscaler(params, np.zeros((*size, 3), np.uint8))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(upscaler.shapes) == 4
    assert len(compilations) == 4
