import pytest

from lkdn_jax import LKDN, InputError
from lkdn_jax.evaluation.comparison import compare_files
from lkdn_jax.evaluation.dataset import Options


def test_networks_of_two_scales_are_not_compared(tmp_path, save_weights):
    files = []
    for scale in (2, 4):
        path = save_weights(LKDN(scale=scale, features=4, num_blocks=1))
        files.append(str(path.rename(tmp_path / f"x{scale}.msgpack")))
    with pytest.raises(InputError, match="scales 2, 4: only networks of one scale"):
        compare_files(files, [], scale=None, options=Options(), progress=print)
