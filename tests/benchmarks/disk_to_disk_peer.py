"""llm-compressor's model_free_ptq on one folder, run by the interpreter of its own environment.

`python disk_to_disk_peer.py MODEL OUT PRESET`. It imports nothing of presswork.
"""

from __future__ import annotations

import argparse
import os


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("preset")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    from llmcompressor import model_free_ptq

    model_free_ptq(
        model_stub=args.model,
        save_directory=args.out,
        scheme=args.preset,
        ignore=["lm_head", "re:.*embed_tokens", "re:.*norm"],
        max_workers=os.cpu_count() or 1,
        device="cpu",
    )


if __name__ == "__main__":
    main()
