"""Run `tokens`: tokenise a dataset into the ids of its samples and their lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pipeline.errors import UserError
from pipeline.stage import Task
from stages.model.artifact_names import MODEL, TOKENS
from stages.tokens.counted import last_counted, not_counted, separated
from stages.tokens.dataset import Dataset, Document, counted_tokens
from stages.tokens.given_ids import GivenIds
from stages.tokens.stage import TokensConfig
from stages.tokens.tokenizer import Tokenizer
from stages.tokens.vocabulary import check_vocabulary, vocabulary
from stages.tokens.windows import Candidates, Ids, choose, padded, stream_windows


def run(config: TokensConfig, task: Task) -> None:
    """Write `tokens.safetensors`; see `stages.tokens.stage`."""
    dataset: Dataset = config.dataset
    draft = task.outputs["out"]
    marked, lengths = tokenise(
        dataset,
        task.inputs["source"].path / MODEL,
        task.scratch,
        lambda text: task.progress(0.0, text),
    )
    ids, counted = separated(marked)
    tensors: dict[str, NDArray[Any]] = {"input_ids": ids, "lengths": lengths}
    if counted_tokens(dataset) != "all" or dataset.stride is not None:
        tensors["counted"] = counted
        draft.meta.update(counted=int(counted.sum()))
    save_file(tensors, draft.path / TOKENS)
    draft.meta.update(samples=len(ids), tokens=int(lengths.sum()), dataset=dataset.describe())


def tokenise(
    dataset: Dataset, model: Path, scratch: Path, progress: Callable[[str], None]
) -> tuple[Ids, Ids]:
    """Ids int32 [num_samples, T], padded on the right, and lengths int32 [num_samples].

    Those that do not count are marked (`stages.tokens.counted`). `model` is the folder with the
    tokenizer's files. Raises UserError, with the number of samples, if the dataset is empty or has
    fewer samples than wanted.
    """
    tokenizer = _reader(dataset, model)
    documents = _with_text(dataset, scratch)
    make = _packed if dataset.packing else _one_by_one
    ids, lengths = make(dataset, tokenizer, documents, progress)
    plain, counted = separated(ids)
    check_vocabulary(plain, tokenizer, vocabulary(model))
    if not counted.any():
        raise UserError(
            f"no token of the assistant is in the {len(ids)} samples of {dataset.describe()}",
            remedy="give a larger dataset.sequence_length, or say dataset.tokens=all",
        )
    return ids, lengths


def _reader(dataset: Dataset, model: Path) -> Tokenizer | GivenIds:
    if dataset.has_ids:
        return GivenIds()
    return Tokenizer(model, assistant_only=counted_tokens(dataset) == "assistant")


def _packed(
    dataset: Dataset,
    tokenizer: Tokenizer | GivenIds,
    documents: Iterator[Document],
    progress: Callable[[str], None],
) -> tuple[Ids, Ids]:
    total = 0

    def pieces() -> Iterator[list[int]]:
        nonlocal total
        for number, ids in enumerate(tokenizer.stream(documents), start=1):
            total += len(ids)
            progress(f"{number} documents")
            yield ids

    length, bos = dataset.sequence_length, tokenizer.bos
    if bos is not None and tokenizer.assistant_only:
        bos = not_counted(bos)
    cut = stream_windows(pieces(), length, bos, dataset.stride)
    candidates = Candidates(cut, dataset.num_samples, dataset.seed)
    kept = {number: window.copy() for number, window in candidates}
    if candidates.count < dataset.num_samples:
        raise UserError(
            f"{dataset.describe()} has {total} tokens: {candidates.count} samples of {length}, "
            f"dataset.num_samples is {dataset.num_samples}",
            remedy=_fewer(candidates.count, f"a smaller dataset.sequence_length than {length}"),
        )
    chosen = choose(candidates.count, dataset.num_samples, dataset.seed)
    ids = np.stack([kept[number] for number in chosen])
    if (stride := dataset.stride) is not None:
        ids = np.stack([last_counted(row, stride) for row in ids])
    return ids, np.full(len(ids), length, dtype=np.int32)


def _one_by_one(
    dataset: Dataset,
    tokenizer: Tokenizer | GivenIds,
    documents: Iterator[Document],
    progress: Callable[[str], None],
) -> tuple[Ids, Ids]:
    candidates = Candidates(documents, dataset.num_samples, dataset.seed)
    numbers: list[int] = []

    def taken() -> Iterator[Document]:
        for number, document in candidates:
            numbers.append(number)
            yield document

    samples: dict[int, list[int]] = {}
    for ids in tokenizer.samples(taken(), dataset.sequence_length):
        samples[numbers[len(samples)]] = ids
        progress(f"{candidates.count} documents")
    if candidates.count < dataset.num_samples:
        raise UserError(
            f"{dataset.describe()} has {candidates.count} documents, "
            f"dataset.num_samples is {dataset.num_samples}",
            remedy=_fewer(candidates.count, "dataset.packing=true"),
        )
    chosen = choose(candidates.count, dataset.num_samples, dataset.seed)
    padding = tokenizer.padding
    if tokenizer.assistant_only:
        padding = not_counted(padding)
    return padded([samples[number] for number in chosen], padding)


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
