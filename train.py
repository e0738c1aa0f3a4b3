"""Train a network; the same command resumes a run that was stopped.

Example: python train.py --config configs/x4.py --workdir runs/x4 --data.batch_size=32
"""

import sys
from pathlib import Path

from lkdn_jax.cli import ArgumentParser, run


def parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--config", required=True, help="such as configs/x4.py")
    add("--workdir", required=True, type=Path, help="folder for everything of the run")
    add("--multihost", action="store_true", help="one of several processes or hosts")
    add("--coordinator", help="host:port of process 0, where no cluster tells it")
    add("--num_processes", type=int, help="with --coordinator")
    add("--process_id", type=int, help="with --coordinator")
    parser.epilog = (
        "Every field of the config can be set by its name: --steps=1000 "
        "--optimizer.learning_rate=1e-3; configs/default.py lists them."
    )
    return parser


def main() -> None:
    flags, overrides = parse().parse_known_args()
    from lkdn_jax.training.config import load_config
    from lkdn_jax.training.loop import train_and_evaluate
    from lkdn_jax.training.processes import join_processes

    default = Path(__file__).parent / "configs" / "default.py"
    config = load_config(flags.config, overrides, list(vars(flags)), default)
    cluster = flags.coordinator, flags.num_processes, flags.process_id
    if flags.multihost or cluster != (None, None, None):
        join_processes(*cluster)
    train_and_evaluate(config, flags.workdir)


if __name__ == "__main__":
    sys.exit(run(main))
