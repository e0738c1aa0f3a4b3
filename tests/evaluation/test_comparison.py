import pytest

from lkdn_jax import LKDN, InputError
from lkdn_jax.evaluation.comparison import _names, compare_files
from lkdn_jax.evaluation.dataset import Options


def test_networks_of_two_scales_are_not_compared(tmp_path, save_weights):
    files = []
    for scale in (2, 4):
        path = save_weights(LKDN(scale=scale, features=4, num_blocks=1))
        files.append(str(path.rename(tmp_path / f"x{scale}.msgpack")))
    with pytest.raises(InputError, match="scales 2, 4: only networks of one scale"):
        compare_files(files, [], scale=None, options=Options(), progress=print)


def test_files_of_one_name_are_called_by_their_folders(
    tmp_path, save_weights, photographs
):
    files = []
    for run in ("a", "b"):
        path = save_weights(LKDN(scale=2, features=4, num_blocks=1))
        (tmp_path / run / "x").mkdir(parents=True)
        files.append(str(path.rename(tmp_path / run / "x" / "model.msgpack")))
    saved = tmp_path / "saved"
    entries = compare_files(
        files,
        [str(photographs)],
        scale=None,
        options=Options(save_images=saved),
        progress=lambda *_: None,
        pictures=False,
    )
    assert [entry.name for entry in entries] == ["a/x/model", "b/x/model"]
    assert [entry.report["name"] for entry in entries] == [
        "a/x/model.msgpack",
        "b/x/model.msgpack",
    ]
    assert [entry.report["weights"] for entry in entries] == files
    folders = {
        str(path.parent.parent.relative_to(saved)) for path in saved.rglob("*.png")
    }
    assert folders == {"a/x/model", "b/x/model"}


def test_a_file_in_a_folder_that_another_path_ends_with():
    # The root is no part of a name: a folder of outputs would be left by it.
    assert _names(["/a/m.pth", "/b/a/m.pth"]) == ["a/m.pth", "b/a/m.pth"]
    assert _names(["/x/v1.2.pth", "/x/v1.3.pth"]) == ["v1.2.pth", "v1.3.pth"]
    assert _names(["/", "/a.pth"]) == ["", "a.pth"]
    assert _names(["/"]) == [""]


@pytest.mark.parametrize("second", ["a/x4.msgpack", "./b/../a/x4.msgpack", "a/x4.pth"])
def test_one_network_given_twice_is_refused(second):
    with pytest.raises(InputError, match="given twice, or two differ in their suffix"):
        compare_files(
            ["a/x4.msgpack", second], [], scale=None, options=Options(), progress=print
        )
