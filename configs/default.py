"""Every field of a training run, with its default. Other configs change a few lines."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Return the defaults: the paper's recipe for LKDN ×4; no field can be added."""
    config = ConfigDict()
    config.seed = 0  # of the initial parameters and of the patches
    config.steps = 1_000_000
    config.init_from = ""  # weights to start from: .pth, .safetensors or .msgpack
    config.loss = "l1"  # or "l2"
    config.ema_decay = 0.999  # of the average that validation and export use
    config.log_every = 100  # steps between two rows of metrics

    config.model = ConfigDict()
    config.model.scale = 4
    config.model.features = 56
    config.model.num_blocks = 8
    config.model.distilled = placeholder(int)  # None: features / 2
    config.model.attention_features = placeholder(int)  # None: features
    config.model.shallow_block = "BSB"  # "BSB", "BSRB" or "RBSB"
    config.model.upsampler = "direct"  # or "rep"
    config.model.dtype = "float32"  # of the computation; or "bfloat16"
    config.model.remat = False  # compute the blocks twice, keep less (not on CPU)

    config.optimizer = ConfigDict()
    config.optimizer.name = "adan"  # or "adam"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.betas = ()  # (): those of the papers
    config.optimizer.weight_decay = 0.0
    config.optimizer.max_grad_norm = placeholder(float)  # None: no clipping
    config.optimizer.accumulate = 1  # parts a batch is processed in

    config.schedule = ConfigDict()
    config.schedule.name = "constant"  # "constant", "step", "cosine" or "wsd"
    config.schedule.warmup_steps = 0
    config.schedule.boundaries = ()  # "step": where the rate is multiplied by
    config.schedule.decay = 0.5  # this
    config.schedule.decay_fraction = 0.2  # "wsd": part of the steps that decays
    config.schedule.final = 0.0  # "cosine", "wsd": rate after the last step ÷ highest

    config.data = ConfigDict()
    # "tfds:div2k", a folder made by lkdn_jax.data.prepare, or "photographs" (those
    # that come with scikit-image)
    config.data.sources = ("tfds:div2k",)
    config.data.data_dir = ""  # of "tfds:…"; "": ~/tensorflow_datasets
    config.data.decoded_dir = ""  # of the decoded tiles; "": inside each source
    config.data.weights = ()  # probability of each source; (): by its size
    config.data.tile = 480  # side of the tiles the images are cut into, in HR pixels
    config.data.hr_patch = 192  # side of a training patch, in HR pixels
    config.data.batch_size = 64  # patches of a step, over all devices and hosts
    # "device": tiles in device memory; "host": batches are sent; "auto": by their size
    config.data.cache = "auto"
    config.data.workers = 0  # processes that cut patches for "host"; 0: threads
    # Steps in one compiled program; None: 10, or 1 on CPU, where XLA's loops are slow.
    config.data.steps_per_dispatch = placeholder(int)

    config.validation = ConfigDict()
    config.validation.folders = ()  # as for evaluate.py --data, or "photographs"
    config.validation.every = 5000  # steps; saves a checkpoint, too

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 5000  # steps
    config.checkpoint.keep = 3  # the latest, beside the best
    return config.lock()
