"""A small LKDN-S ×4 on the photographs of scikit-image: minutes on two CPU cores.

    python train.py --config configs/quickstart.py --workdir runs/quickstart

Expected: 29.98 dB on chelsea, coffee and rocket, which are held out; bicubic 29.59 dB.
Takes two minutes on two cores.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the configuration."""
    config = default.get_config()
    config.steps = 4000
    config.ema_decay = 0.98
    config.model.features = 24
    config.model.num_blocks = 2
    config.model.shallow_block = "RBSB"
    config.model.upsampler = "rep"
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 20
    config.data.sources = ("photographs",)
    config.data.tile = 256
    config.data.hr_patch = 64
    config.data.batch_size = 8
    config.validation.folders = ("photographs",)
    config.validation.every = 1000
    config.checkpoint.every = 1000
    return config
