"""Tokenizer of a model, which turns documents into token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from pipeline.errors import UserError
from stages.model.tokenizer.load import load_tokenizer, readable
from stages.tokens.dataset import Conversation, Document, TokenIds
from stages.tokens.requirements import no_chat_template, no_tokenizer

SEPARATOR = "\n\n"
"""Follows every text of a packed stream."""

BATCH = 256
REFUSALS = (
    *(ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError, AssertionError, MemoryError),
)
"""Exceptions of the expressions in a template, beside jinja's own."""

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
SOME = 6
"""Roles of a conversation that an error names."""


class Tokenizer:
    """The tokenizer in a model folder; it is only read, never changed or saved.

    With `assistant_only` every id that is no part of an assistant's turn comes as ~id, a negative
    number (see :mod:`stages.tokens.counted`).
    """

    def __init__(self, folder: Path, *, assistant_only: bool = False) -> None:
        self.assistant_only = assistant_only
        if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
            raise no_tokenizer()
        self._inner: Any = load_tokenizer(folder)

    @property
    def bos(self) -> int | None:
        """The id that this tokenizer puts before every text; None if it puts none."""
        (ids,) = self._ids(["a"], special=True)
        return ids[0] if ids and ids[0] == self._inner.bos_token_id else None

    @property
    def padding(self) -> int:
        """The id that pads short samples; it is never attended to or counted."""
        for id in (self._inner.pad_token_id, self._inner.eos_token_id):
            if id is not None:
                return int(id)
        return 0

    def stream(self, documents: Iterable[Document]) -> Iterator[list[int]]:
        """Ids of each document for packing, without special tokens but a chat template's own."""
        return self._encode(documents, lambda text: text + SEPARATOR, special=False)

    def samples(self, documents: Iterable[Document], length: int) -> Iterator[list[int]]:
        """Ids of each document by itself, with special tokens, cut at `length`."""
        for ids in self._encode(documents, lambda text: text, special=True):
            yield ids[:length]

    def _encode(
        self, documents: Iterable[Document], finish: Callable[[str], str], *, special: bool
    ) -> Iterator[list[int]]:
        remaining = iter(documents)
        while group := list(islice(remaining, BATCH)):
            if self.assistant_only:
                yield from (self._marked(_conversation(document)) for document in group)
                continue
            texts = [
                finish(d) if isinstance(d, str) else self._render(_conversation(d)) for d in group
            ]
            chats = [not isinstance(d, str) for d in group]
            plain = special and not any(chats)
            yield from self._ids(texts, special=plain)

    def _ids(self, texts: list[str], *, special: bool) -> list[list[int]]:
        with readable("the model's tokenizer fails on a text"):
            try:
                found = self._inner(texts, add_special_tokens=special, verbose=False)
                return list(found.input_ids)
            except (UnicodeEncodeError, TypeError) as error:
                raise UserError(
                    f"the tokenizer refuses a text: {error}",
                    remedy="check the dataset: half a surrogate pair (\\ud83d) is no character",
                ) from error

    def named(self, id: int) -> str:
        """The text of one token."""
        return str(self._inner.convert_ids_to_tokens(int(id)))

    def _marked(self, conversation: Conversation) -> list[int]:
        """The ids of a conversation, ~id for those that do not count.

        A token counts if some of its characters are the assistant's. transformers' own mask is not
        taken: where a block ends in a character that is in no token, it counts all that follows.
        """
        text = self._render(conversation)
        template = self._inner.get_chat_template()
        if not self._inner.is_fast or not GENERATION.search(template):
            raise UserError(
                "dataset.tokens is 'assistant', but the model's chat template does not mark what "
                "the assistant says: it has no {% generation %} block"
                if self._inner.is_fast
                else "dataset.tokens is 'assistant', which needs a tokenizer with a tokenizer.json",
                remedy="say dataset.tokens=all, or put the assistant's text of the template in "
                "{% generation %} ... {% endgeneration %}",
            )
        turns: Any = conversation
        rendered: Any = render_jinja_template(
            [turns],
            chat_template=template,
            return_assistant_tokens_mask=True,
            **self._inner.special_tokens_map,
        )
        spans = rendered[1][0]
        found = self._inner(
            text, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        )
        return [
            id if any(start < to and end > at and end > start for at, to in spans) else ~id
            for id, (start, end) in zip(found.input_ids, found.offset_mapping, strict=True)
        ]

    def _render(self, conversation: Conversation) -> str:
        if self._inner.chat_template is None:
            raise no_chat_template()
        try:
            text = str(self._inner.apply_chat_template(conversation, tokenize=False))
        except (TemplateError, *REFUSALS) as error:
            reason = str(error) or type(error).__name__
            raise UserError(
                f"the chat template refuses a conversation of {_roles(conversation)}: {reason}",
                remedy="leave such conversations out, or say dataset.messages_column=null "
                "dataset.text_column=NAME for a column of text",
            ) from error
        if not text.strip() and any(_says(turn) for turn in conversation):
            raise UserError(
                f"the chat template renders nothing of a conversation of {_roles(conversation)}",
                remedy="use a model with a whole chat template, or say "
                "dataset.messages_column=null dataset.text_column=NAME for a column of text",
            )
        lost = [name for name in _called(conversation) if name not in text]
        if lost:
            raise UserError(
                f"the chat template leaves out tool calls: nothing of {lost[0]!r} is in the text "
                f"of a conversation of {_roles(conversation)}",
                remedy="use a model whose chat template has tool calls, or leave such "
                "conversations out",
            )
        return text


def _conversation(document: Document) -> Conversation:
    if isinstance(document, str | TokenIds):
        raise TypeError(f"a conversation is needed, not {type(document).__name__}")
    return document


def _says(turn: object) -> bool:
    content = turn.get("content") if isinstance(turn, Mapping) else None
    return isinstance(content, str) and bool(content.strip())


def _roles(conversation: Conversation) -> str:
    roles = [str(turn.get("role")) for turn in conversation if isinstance(turn, Mapping)]
    return ", ".join(roles[:SOME]) + (", ..." if len(roles) > SOME else "")


def _called(conversation: Conversation) -> Iterator[str]:
    """The names of the functions that are called in a conversation."""
    for turn in conversation:
        calls = turn.get("tool_calls") if isinstance(turn, Mapping) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function", call) if isinstance(call, Mapping) else None
            name = function.get("name") if isinstance(function, Mapping) else None
            if isinstance(name, str):
                yield name
