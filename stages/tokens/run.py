"""Run `tokens`: tokenise a dataset into the ids of its samples and their lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pipeline.errors import UserError
from pipeline.stage import Task
from stages.model.artifact_names import MODEL, TOKENS
from stages.tokens.dataset import Dataset, Document
from stages.tokens.stage import TokensConfig
from stages.tokens.tokenizer import Tokenizer
from stages.tokens.windows import Ids, choose, padded, window_count, windows


def run(config: TokensConfig, task: Task) -> None:
    """Write `tokens.safetensors` with `input_ids` int32 [N, T] and `lengths` int32 [N]."""
    dataset: Dataset = config.dataset
    draft = task.outputs["out"]
    ids, lengths = tokenise(
        dataset,
        task.inputs["source"].path / MODEL,
        task.scratch,
        lambda text: task.progress(0.0, text),
    )
    save_file({"input_ids": ids, "lengths": lengths}, draft.path / TOKENS)
    draft.meta.update(samples=len(ids), tokens=int(lengths.sum()), dataset=dataset.describe())


def tokenise(
    dataset: Dataset, model: Path, scratch: Path, progress: Callable[[str], None]
) -> tuple[Ids, Ids]:
    """Ids int32 [num_samples, T], padded on the right, and lengths int32 [num_samples].

    `model` is the folder with the tokenizer's files. Raises UserError, with the number of samples,
    if the dataset is empty or has fewer samples than wanted.
    """
    tokenizer = Tokenizer(model)
    documents = _with_text(dataset, scratch)
    make = _packed if dataset.packing else _one_by_one
    return make(dataset, tokenizer, documents, progress)


def _packed(
    dataset: Dataset,
    tokenizer: Tokenizer,
    documents: Iterator[Document],
    progress: Callable[[str], None],
) -> tuple[Ids, Ids]:
    pieces = []
    for document in tokenizer.stream(documents):
        pieces.append(np.array(document, dtype=np.int32))
        progress(f"{len(pieces)} documents")
    stream = np.concatenate(pieces)
    length, bos = dataset.sequence_length, tokenizer.bos
    count = window_count(len(stream), length, bos)
    if count < dataset.num_samples:
        raise UserError(
            f"{dataset.describe()} has {len(stream)} tokens: {count} samples of {length}, "
            f"dataset.num_samples is {dataset.num_samples}",
            remedy=_fewer(count, f"a smaller dataset.sequence_length than {length}"),
        )
    ids = windows(stream, choose(count, dataset.num_samples, dataset.seed), length, bos)
    return ids, np.full(len(ids), length, dtype=np.int32)


def _one_by_one(
    dataset: Dataset,
    tokenizer: Tokenizer,
    documents: Iterator[Document],
    progress: Callable[[str], None],
) -> tuple[Ids, Ids]:
    samples: list[list[int]] = []
    for ids in tokenizer.samples(documents, dataset.sequence_length):
        samples.append(ids)
        progress(f"{len(samples)} documents")
    if len(samples) < dataset.num_samples:
        raise UserError(
            f"{dataset.describe()} has {len(samples)} documents, "
            f"dataset.num_samples is {dataset.num_samples}",
            remedy=_fewer(len(samples), "dataset.packing=true"),
        )
    chosen = choose(len(samples), dataset.num_samples, dataset.seed)
    return padded([samples[i] for i in chosen], tokenizer.padding)


def _fewer(count: int, otherwise: str) -> str:
    more = f"{otherwise}, or a dataset with more text"
    return f"set dataset.num_samples={count} at most, or {more}" if count else f"set {more}"


def _with_text(dataset: Dataset, scratch: Path) -> Iterator[Document]:
    """The documents that are not blank; UserError if there are none."""
    found = False
    for document in dataset.documents(scratch):
        if not isinstance(document, str) or document.strip():
            found = True
            yield document
    if not found:
        raise UserError(
            f"{dataset.describe()} is empty: it holds no text", remedy="give a dataset with text"
        )
