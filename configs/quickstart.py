"""A small LKDN-S ×4 on the photographs of scikit-image: minutes on two CPU cores.

python train.py --config configs/quickstart.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the configuration."""
    config = default.get_config()
    config.steps = 2000
    config.log_every = 50
    config.ema_decay = 0.98
    config.model.features = 16
    config.model.num_blocks = 2
    config.model.shallow_block = "RBSB"
    config.model.upsampler = "rep"
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 20
    config.data.sources = ("photographs",)
    config.data.tile = 256
    config.data.hr_patch = 64
    config.data.batch_size = 16
    config.validation.folders = ("photographs",)
    config.validation.every = 500
    config.checkpoint.every = 500
    return config
