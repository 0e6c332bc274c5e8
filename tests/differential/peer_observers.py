"""What llm-compressor's weight observers find, by the interpreter of its own environment.

`python peer_observers.py IN OUT`: IN is a safetensors file with `weight` [out, in] and `squares`
[in], whose metadata `wanted` is a JSON list of [key, observer, args]; OUT gets `KEY.scale`,
`KEY.zero_point` and, where there is one, `KEY.global_scale`. With `--timed ROUNDS` OUT gets the
seconds of every round, `KEY.seconds`, instead. It imports nothing of presswork.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("given")
    parser.add_argument("out")
    parser.add_argument("--timed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    torch.set_num_threads(args.threads)
    with safe_open(args.given, framework="pt") as file:
        weight, squares = file.get_tensor("weight"), file.get_tensor("squares")
        wanted = json.loads(file.metadata()["wanted"])
    found: dict[str, Any] = {}
    for key, observer, options in wanted:
        if args.timed:
            seconds = []
            for _ in range(args.timed + 1):  # the first one warms up
                began = time.perf_counter()
                observed(observer, options, weight, squares)
                seconds.append(time.perf_counter() - began)
            found[f"{key}.seconds"] = torch.tensor(seconds[1:], dtype=torch.float64)
            continue
        for name, value in observed(observer, options, weight, squares).items():
            if value is not None:
                found[f"{key}.{name}"] = value.contiguous()
    save_file(found, args.out)


def observed(observer: str, options: dict[str, Any], weight: Any, squares: Any) -> dict[str, Any]:
    """The parameters that one observer gives a weight."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.observers import Observer

    args = QuantizationArgs.model_validate(options)
    made = Observer.load_from_registry(observer, base_name="weight", args=args)
    if "imatrix" in observer:
        made._imatrix_sum, made._imatrix_count = squares.clone(), torch.tensor(1)
    made(weight)
    return dict(made.get_qparams())


if __name__ == "__main__":
    main()
