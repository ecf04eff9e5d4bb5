"""What do copies of weights in oneDNN's layout gain over plain linear layers?

The layers of SmolLM2-135M with as many rows as passes have. Weights of several layers take turns,
so that they are not all in a cache. Needs a CPU whose PyTorch has oneDNN.

python -m benchmarks.products [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from benchmarks.report import interleaved, markdown, publish
from torch import nn

from incatalog.packed.products import LaidOutLayers, has_onednn

_SHAPES = ((576, 576), (576, 192), (576, 1536), (1536, 576))
_ROWS = (1, 4, 16, 64, 128, 512, 1880)
_LAYERS = 8


@torch.no_grad()
def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if not has_onednn():
        sys.exit("this PyTorch has no oneDNN to lay weights out by; install a build that has")
    torch.manual_seed(0)
    table: list[list[object]] = []
    for inputs, outputs in _SHAPES:
        layers = [nn.Linear(inputs, outputs, bias=False) for _ in range(_LAYERS)]
        laid_out = LaidOutLayers(layers)
        products = [laid_out.product(layer) for layer in layers]
        for rows in _ROWS:
            given = torch.randn(1, rows, inputs)
            seconds = interleaved(
                {
                    "plain": lambda given=given, layers=layers: [layer(given) for layer in layers],
                    "laid out": lambda given=given, products=products: [
                        product(given) for product in products
                    ],
                },
                options.rounds,
            )
            plain, copied = (statistics.median(each) / _LAYERS for each in seconds.values())
            table.append(
                [f"{inputs} x {outputs}", rows, f"{plain * 1e3:.3f}", f"{copied * 1e3:.3f}",
                 f"{copied / plain:.2f}"]
            )  # fmt: skip
    header = ("layer", "rows", "plain, ms", "laid out, ms", "of plain")
    publish("products", "Linear layers by copies of their weights", markdown(header, table))


if __name__ == "__main__":
    main()
