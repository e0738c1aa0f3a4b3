"""A run that takes a second: for the tests of the loop."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.steps = 12
    config.log_every = 4
    config.ema_decay = 0.9
    config.model.scale = 2
    config.model.features = 4
    config.model.num_blocks = 1
    config.model.shallow_block = "RBSB"
    config.model.upsampler = "rep"
    config.data.sources = ("photographs",)
    config.data.tile = 128
    config.data.hr_patch = 16
    config.data.batch_size = 4
    config.data.steps_per_dispatch = 1
    config.validation.every = 12
    config.checkpoint.every = 4
    config.checkpoint.keep = 2
    return config
