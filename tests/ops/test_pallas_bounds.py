"""The Pallas kernels on arrays that check every access.

In jax's interpreter what lies outside an array is left out silently; on a GPU it is
another's.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lkdn_jax.ops import depthwise_pallas
from lkdn_jax.ops.depthwise import depthwise_conv
from lkdn_jax.ops.depthwise_kernels import How
from lkdn_jax.ops.gelu import gelu


class Checked:
    """An array that is read and written inside only, and written to once a place."""

    def __init__(self, array):
        self.array = np.array(array)
        self.shape, self.dtype = self.array.shape, self.array.dtype
        self.times = np.zeros(self.shape, int)

    @property
    def at(self):
        return At(self)

    def __setitem__(self, index, value):
        store(self.at[index], value)


class At:
    """What `ref.at[index]` gives; slices span an axis each, in their order."""

    def __init__(self, ref, index=()):
        self.ref = ref
        slices = [part for part in index if isinstance(part, pl.Slice)]
        axes = iter(np.ix_(*(part.start + np.arange(part.size) for part in slices)))
        parts = [next(axes) if isinstance(p, pl.Slice) else p for p in index]
        self.index = np.broadcast_arrays(*map(np.asarray, parts))

    def __getitem__(self, index):
        return At(self.ref, index)

    def where(self, mask):
        """Return the mask, and the places it leaves."""
        mask = np.broadcast_to(mask, self.index[0].shape)
        places = tuple(part[mask] for part in self.index)
        for part, length in zip(places, self.ref.shape, strict=True):
            assert ((part >= 0) & (part < length)).all()
        return mask, places


def load(at, mask, other):
    mask, places = at.where(mask)
    found = np.full(mask.shape, other, at.ref.dtype)
    found[mask] = at.ref.array[places]
    return jnp.asarray(found)


def store(at, value, mask=True):
    mask, places = at.where(mask)
    at.ref.array[places] = np.asarray(value)[mask]
    np.add.at(at.ref.times, places, 1)


def checked_call(monkeypatch, kernel, out_shape, grid, **_):
    """As `pl.pallas_call`, one program after the other."""

    def call(*arrays):
        out = Checked(np.full(out_shape.shape, np.nan, out_shape.dtype))
        for ids in itertools.product(*map(range, grid)):
            monkeypatch.setattr(
                pl, "program_id", tuple(map(jnp.int32, ids)).__getitem__
            )
            kernel(*map(Checked, arrays), out)
        assert (out.times == 1).all()
        return jnp.asarray(out.array)

    return call


@pytest.fixture
def checked(monkeypatch):
    monkeypatch.setattr(pl, "pallas_call", partial(checked_call, monkeypatch))
    monkeypatch.setattr(triton, "load", load)
    monkeypatch.setattr(triton, "store", store)
    with jax.disable_jit():
        yield


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(
    ("shape", "k", "dilation", "pad"),
    [
        ((2, 5, 17, 6), 3, 1, 1),
        ((1, 7, 5, 70), 5, 3, 6),
        ((2, 6, 17, 4), 5, 1, 0),
    ],
)
def test_every_place_once_and_none_outside(shape, k, dilation, pad):
    rng = np.random.default_rng(0)
    x, kernel, bias = (
        jnp.asarray(rng.normal(size=size).astype(np.float32))
        for size in (shape, (k, k, 1, shape[-1]), shape[-1:])
    )
    conv = partial(
        depthwise_conv,
        dilation=dilation,
        padding="SAME" if pad else "VALID",
        implementation="lax",
    )
    expected, pullback = jax.vjp(partial(conv, x), kernel, bias)
    how = partial(How, dilation, pad, interpret=True)
    y = depthwise_pallas._forward((x, kernel, bias), how())
    np.testing.assert_allclose(y, expected, atol=1e-5)
    dy = jnp.asarray(rng.normal(size=y.shape).astype(np.float32))
    sums = depthwise_pallas._gradients(x, dy, k, dilation, pad, interpret=True)
    for found, wanted in zip((sums[:-1], sums[-1]), pullback(dy), strict=True):
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-4)
    gated = depthwise_pallas._forward((x, kernel, bias, dy), how())
    np.testing.assert_allclose(gated, expected * dy, atol=2e-5)
    framed = depthwise_pallas._forward((x, kernel, bias), how(activated=True, frame=1))
    wanted = np.pad(gelu(expected), ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(framed, wanted, atol=1e-5)
