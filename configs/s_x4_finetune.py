"""LKDN-S ×4, the second stage of the paper: large patches, L2, small learning rate.

    python train.py --config configs/s_x4_finetune.py --workdir runs/s_x4_finetune \
        --init_from runs/s_x4/model.msgpack

Photographs of your own must be prepared with `--tile 640` for it.

Expected: the published weights score 32.11 dB on Set5. Not run to its end here yet.
"""

from ml_collections import ConfigDict

from configs import s_x4


def get_config() -> ConfigDict:
    """Return the configuration."""
    config = s_x4.get_config()
    config.steps = 100_000
    config.loss = "l2"
    config.optimizer.learning_rate = 2e-5
    config.data.tile = 640
    config.data.hr_patch = 480
    config.data.batch_size = 64
    return config
