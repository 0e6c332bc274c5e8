"""A small llama trained here, as a second model to measure on: no weight of it was ever quantized.

    python -m tests.benchmarks.trained_llama FOLDER --text TEXT [TEXT ...] --minutes 20

SmolLM2's weights come from a 4-bit file and lie on its grid, which flatters some methods. This one
reads bytes (the tokenizer of `random_llama`), trains on the first half of each text (JSON lines by
their `text`), so that the second half of the first is left for judging, and stops when its minutes
of processor time are over: the rate falls to zero by then, whatever the machine is worth. Weights
are saved in bfloat16, 4 layers of width 256 unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.random_llama import write_tokenizer
from tests.benchmarks.tokens import halves

if TYPE_CHECKING:
    import torch

PEAK_RATE = 2e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Widths that groups of 32, 64 and 128 divide."""

    layers: int = 4
    hidden: int = 256
    intermediate: int = 768
    heads: int = 4


def text_of(path: Path) -> str:
    """The first half of a text, or the documents of a file of JSON lines, one after another."""
    if path.suffix != ".jsonl":
        return halves(path)[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n\n".join(str(json.loads(line)["text"]) for line in lines if line.strip())


def model_of(shape: Shape) -> Any:
    """The untrained model in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=2048,
        bos_token_id=256,
        eos_token_id=257,
    )
    return LlamaForCausalLM(config)


def train(model: Any, ids: torch.Tensor, *, minutes: float, length: int, batch: int) -> float:
    """AdamW on random windows until the processor time is used; the mean loss of the last tenth."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    began, losses, step = time.process_time(), list[float](), 0
    while (done := (time.process_time() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / 50) * (1 - done)
        starts = torch.randint(len(ids) - length, (batch,), generator=generator)
        rows = torch.stack([ids[start : start + length] for start in starts.tolist()])
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        step += 1
    last = losses[-max(1, len(losses) // 10) :]
    sys.stdout.write(f"{step} steps, loss {sum(last) / len(last):.4f}\n")
    return sum(last) / len(last)


def write(folder: Path, texts: Sequence[Path], shape: Shape, *, minutes: float) -> float:
    """Train and save a transformers folder; the loss in nats per byte."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = "\n\n".join(text_of(path) for path in texts)
    ids = tokenizer(whole, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    model = model_of(shape)
    loss = train(model, ids, minutes=minutes, length=256, batch=16)
    model.to(torch.bfloat16).save_pretrained(folder)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="of processor time")
    for name in ("layers", "hidden", "intermediate", "heads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Shape(), name))
    given = vars(parser.parse_args())
    folder, texts, minutes = given.pop("folder"), given.pop("text"), given.pop("minutes")
    write(folder, texts, Shape(**given), minutes=minutes)


if __name__ == "__main__":
    main()
