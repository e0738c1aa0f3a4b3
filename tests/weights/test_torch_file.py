import io
import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from lkdn_jax import InputError
from lkdn_jax.weights.torch_file import read_pth

RNG = np.random.default_rng(0)
STATE = {
    "a.weight": RNG.normal(size=(4, 3, 1, 1)).astype(np.float32),
    "a.bias": RNG.normal(size=4).astype(np.float32),
}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"params": STATE},
        {"params": {"a.weight": np.zeros(1)}, "params_ema": STATE},
        {f"module.{name}": array for name, array in STATE.items()},
    ],
    ids=["flat", "params", "params_ema preferred", "DataParallel"],
)
def test_reads_state_dicts(tmp_path, write_pth, content):
    write_pth(tmp_path / "a.pth", content)
    state = read_pth(tmp_path / "a.pth")
    assert list(state) == list(STATE)
    for name in STATE:
        np.testing.assert_array_equal(state[name], STATE[name])


class Payload:
    def __reduce__(self):
        return eval, (f"open(r'{self.path}', 'w').close()",)

    def __init__(self, path):
        self.path = path


def test_refuses_code_without_running_it(tmp_path, write_pth):
    ran = tmp_path / "ran"
    write_pth(tmp_path / "evil.pth", {**STATE, "b": Payload(ran)})
    with pytest.raises(InputError, match=r"refused to load __builtin__\.eval"):
        read_pth(tmp_path / "evil.pth")
    assert not ran.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "numpy.load", "torch._utils._rebuild_parameter_with_state"]
)
def test_refuses_any_other_name(tmp_path, name):
    module, function = name.rsplit(".", 1)
    data = f"c{module}\n{function}\n.".encode()
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(InputError, match=f"refused to load {name}"):
        read_pth(tmp_path / "a.pth")


def test_refuses_to_change_a_dtype(tmp_path):
    # What a pickle sets the state of, here to eight bytes less than none.
    state = pickle.dumps((3, ">", None, None, None, -1, -1, 0), protocol=2)[2:-1]
    data = b"\x80\x02ctorch\nBFloat16Storage\n" + state + b"b0}."
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(InputError, match="its pickle is damaged"):
        read_pth(tmp_path / "a.pth")
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    assert (bfloat16.itemsize, bfloat16.byteorder) == (2, "=")


def pickled(*, storage="FloatStorage", offset, shape, strides, nested=False):
    """Pickle {"a": one tensor of a storage of ten elements}, opcode by opcode."""

    def number(value):
        return b"I" + str(value).encode() + b"\n"

    def sequence(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def tensor(of, offset, shape, strides):
        head = b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + number(offset)
        return head + sequence(shape) + sequence(strides) + b"I00\n}tR"

    pid = f"(S'storage'\nctorch\n{storage}\nS'0'\nS'cpu'\nI10\ntQ".encode()
    if nested:
        pid = tensor(pid, 0, (2, 5), (5, 1))
    return b"}S'a'\n" + tensor(pid, offset, shape, strides) + b"s."


TEN = np.arange(10, dtype="<f4")


def write_raw(path, data, elements=TEN, byteorder=None, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        if byteorder:
            archive.writestr("archive/byteorder", byteorder)
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", elements.tobytes())


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "bfloat16"])
def test_reads_views_of_every_float(tmp_path, dtype):
    names = {"f4": "Float", "f8": "Double", "f2": "Half", "bfloat16": "BFloat16"}
    data = pickled(
        storage=f"{names[dtype]}Storage", offset=1, shape=(3, 2), strides=(1, 4)
    )
    elements = np.arange(10).astype(ml_dtypes.bfloat16 if dtype[0] == "b" else dtype)
    write_raw(tmp_path / "a.pth", data, elements)
    a = read_pth(tmp_path / "a.pth")["a"]
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, [[1, 5], [2, 6], [3, 7]])


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"offset": 6, "shape": (5,), "strides": (1,)}, "reaches past its storage"),
        ({"offset": -1, "shape": (5,), "strides": (1,)}, "reaches past its storage"),
        ({"offset": 3, "shape": (5,), "strides": (-1,)}, "reaches past its storage"),
        ({"offset": 0, "shape": (3,), "strides": (1 << 61,)}, "storage|damaged"),
        (
            {"offset": 0, "shape": (1 << 29,), "strides": (0,)},
            "overlap or are expanded",
        ),
        (
            {"offset": 5, "shape": (9,), "strides": (1,), "nested": True},
            "not a tensor",
        ),
    ],
)
def test_refuses_to_leave_a_storage(tmp_path, view, message):
    write_raw(tmp_path / "a.pth", pickled(**view))
    with pytest.raises(InputError, match=message):
        read_pth(tmp_path / "a.pth")


def test_refuses_what_unfolds(tmp_path):
    data = pickled(offset=0, shape=(10,), strides=(1,))
    write_raw(tmp_path / "a.pth", data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed records"):
        read_pth(tmp_path / "a.pth")


def test_refuses_other_storages(tmp_path):
    data = pickled(offset=0, shape=(10,), strides=(1,))
    write_raw(tmp_path / "a.pth", data.replace(b"FloatStorage", b"LongStorage"))
    with pytest.raises(InputError, match=r"refused to load torch\.LongStorage"):
        read_pth(tmp_path / "a.pth")
    write_raw(tmp_path / "b.pth", data.replace(b"ctorch\nFloatStorage\n", b"S'f4'\n"))
    with pytest.raises(InputError, match="only float tensors are read"):
        read_pth(tmp_path / "b.pth")


def test_refuses_another_byte_order_and_storages_of_another_size(tmp_path):
    data = pickled(offset=0, shape=(10,), strides=(1,))
    write_raw(tmp_path / "a.pth", data, TEN, "little")
    np.testing.assert_array_equal(read_pth(tmp_path / "a.pth")["a"], TEN)
    write_raw(tmp_path / "b.pth", data, TEN.astype(">f4"), "big")
    with pytest.raises(InputError, match="big-endian tensors"):
        read_pth(tmp_path / "b.pth")
    write_raw(tmp_path / "c.pth", data, TEN[:9])
    with pytest.raises(InputError, match="storage 0 has 9 of 10 elements"):
        read_pth(tmp_path / "c.pth")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_refuses_a_truncated_file(tmp_path, write_pth, keep):
    path = tmp_path / "a.pth"
    write_pth(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError, match=r"a\.pth: not a \.pth file in the zip format"):
        read_pth(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"params": {"epoch": 3}}, "'epoch' is a int, not a tensor"),
        ({}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_refuses_what_is_no_state_dict(tmp_path, write_pth, content, message):
    write_pth(tmp_path / "a.pth", content)
    with pytest.raises(InputError, match=message):
        read_pth(tmp_path / "a.pth")


def test_refuses_other_files(tmp_path):
    text, archive, legacy = (tmp_path / f"{name}.pth" for name in "abc")
    text.write_text("not weights")
    with pytest.raises(InputError, match=r"not a \.pth file"):
        read_pth(text)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"not one that torch\.save wrote"):
        read_pth(archive)
    data = io.BytesIO()
    pickle.dump(OrderedDict(a=1), data)
    legacy.write_bytes(data.getvalue())
    with pytest.raises(InputError, match=r"PyTorch 1\.6 or later"):
        read_pth(legacy)
