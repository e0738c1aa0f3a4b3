import jax
import numpy as np
import optax
import pytest

from lkdn_jax import LKDN, InputError
from lkdn_jax.training.checkpoint import Checkpoints
from lkdn_jax.training.sharding import make_mesh, replicated_shapes
from lkdn_jax.training.state import create_state

MODEL = LKDN(scale=2, features=2, num_blocks=1)


@pytest.fixture
def state(init):
    return create_state(init(MODEL)["params"], optax.adam(1e-3))


def shapes_of(state):
    return replicated_shapes(make_mesh(), jax.eval_shape(lambda: state))


def steps(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_keeps_the_best_beside_the_latest(tmp_path, state):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=2)
    for step, psnr_y in enumerate((20.0, 29.0, 21.0, None, 22.0), 1):
        checkpoints.save(state.replace(step=np.int32(step)), psnr_y)
    checkpoints.wait()
    assert checkpoints.last().endswith("5")
    checkpoints.close()
    assert steps(folder) == [2, 4, 5]
    # Another process knows which was the best.
    checkpoints = Checkpoints(folder, keep=2)
    for step in (6, 7, 8):
        checkpoints.save(state.replace(step=np.int32(step)), 23.0)
    checkpoints.close()
    assert steps(folder) == [2, 7, 8]


def test_restores_what_was_saved(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    shapes = shapes_of(state)
    assert checkpoints.restore(shapes) is None
    changed = jax.tree.map(lambda leaf: leaf + 3, state)
    checkpoints.save(changed)
    checkpoints.wait()
    restored = checkpoints.restore(shapes)
    assert jax.tree.structure(restored) == jax.tree.structure(changed)
    jax.tree.map(np.testing.assert_array_equal, restored, changed)
    other = create_state(state.params, optax.sgd(1e-3, 0.9))
    with pytest.raises(InputError, match="of another network or optimizer"):
        checkpoints.restore(shapes_of(other))
    checkpoints.close()


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "removed"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, state, damage):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(state.replace(step=np.int32(step)))
    checkpoints.wait()
    files = list((folder / "2" / "default").rglob("d/*"))
    assert files
    for file in files:
        size = file.stat().st_size
        file.unlink()
        if damage != "removed":
            file.write_bytes(bytes(size if damage == "zeroed" else 0))
    with pytest.raises(InputError, match=r"checkpoint 2 is damaged, .*move 2 away"):
        checkpoints.restore(shapes_of(state))
    checkpoints.close()
    (folder / "2").rename(tmp_path / "2")
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(shapes_of(state))
    checkpoints.close()
    assert restored is not None
    assert int(restored.step) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"psnr_y": null}', b"[1]"])
def test_damaged_metrics_are_one_line(tmp_path, state, content):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=1)
    for step, psnr_y in ((1, 30.0), (2, 20.0)):
        checkpoints.save(state.replace(step=np.int32(step)), psnr_y)
    checkpoints.close()
    metrics = folder / "1" / "metrics"
    (metrics / "metrics").write_bytes(content)
    with pytest.raises(InputError, match=f"damaged; move {metrics} away") as error:
        Checkpoints(folder, keep=1)
    assert "\n" not in str(error.value)
    metrics.rename(tmp_path / "metrics")
    # One that was not finished is Orbax's to remove.
    unfinished = folder / "7.orbax-checkpoint-tmp" / "metrics"
    unfinished.mkdir(parents=True)
    (unfinished / "metrics").write_bytes(content)
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(state.replace(step=np.int32(3)), 10.0)
    checkpoints.close()
    assert steps(folder) == [2, 3]
