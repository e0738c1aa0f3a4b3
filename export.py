"""Write a network as one file, with its re-parameterizable parts folded.

Example: python export.py --weights LKDN-S_x4.pth --output LKDN-S_x4.msgpack
"""

import sys
from argparse import BooleanOptionalAction

from lkdn_jax.cli import ArgumentParser, run


def parse() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, help=".pth, .safetensors or .msgpack")
    add("--output", required=True, help=".msgpack or .safetensors file to write")
    add("--fold", action=BooleanOptionalAction, default=True, help="fold RBSBs")
    add(
        "--names",
        choices=("ours", "published"),
        default="ours",
        help="names of the parameters; published is for PyTorch (.safetensors)",
    )
    return parser


def main() -> None:
    flags = parse().parse_args()
    from lkdn_jax.weights.export import export

    result = export(flags.weights, flags.output, folded=flags.fold, names=flags.names)
    print(f"before\n{result.before}")
    print(f"after\n{result.after}")
    if result.difference is None:
        print("nothing was folded")
    else:
        print(f"largest difference of the outputs: {result.difference:.1e}")
    print(f"wrote {flags.output}")


if __name__ == "__main__":
    sys.exit(run(main))
