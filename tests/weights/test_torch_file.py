import io
import pickle
import zipfile
from collections import OrderedDict

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


def test_refuses_a_tensor_that_reaches_past_its_storage(tmp_path, write_pth):
    write_pth(tmp_path / "a.pth", STATE)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    data = records["archive/data.pkl"]
    # The bias has shape (4,), pickled as K\x04\x85; 40 reaches far past its storage.
    assert data.count(b"K\x04\x85") == 1
    records["archive/data.pkl"] = data.replace(b"K\x04\x85", b"K\x28\x85")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    with pytest.raises(InputError, match="reaches past its storage"):
        read_pth(tmp_path / "b.pth")


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
