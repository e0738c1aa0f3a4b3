"""LKDN ×2, as in the paper (section 4.1 and its released options).

    python train.py --config configs/x2.py --workdir runs/x2

on DIV2K; with Flickr2K prepared (README, Train) add

    --data.sources=tfds:div2k,flickr2k_x2

Expected: the published weights score 38.12 dB on Set5. This configuration has not been
run to its end here yet, so no run time is claimed.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the configuration."""
    config = default.get_config()
    config.model.scale = 2
    config.data.hr_patch = 96
    return config
