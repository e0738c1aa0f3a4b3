"""LKDN-S ×4 from scratch, as in the paper: RBSB, Adam.

    python train.py --config configs/s_x4.py --workdir runs/s_x4

The paper's other optimizer: --optimizer.name=adan --optimizer.learning_rate=5e-3.
Expected after s_x4_finetune: the published weights score 32.11 dB on Set5. Not run to
its end here yet.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the configuration."""
    config = default.get_config()
    config.steps = 950_000
    config.model.features = 42
    config.model.num_blocks = 5
    config.model.shallow_block = "RBSB"
    config.model.upsampler = "rep"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.data.hr_patch = 256
    config.data.batch_size = 128
    return config
