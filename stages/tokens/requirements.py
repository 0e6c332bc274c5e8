"""Requirements of a dataset on the model: a tokenizer for text, a template for conversations."""

from __future__ import annotations

from pipeline.errors import UserError
from stages.tokens.dataset import Dataset


def lacking(dataset: Dataset, facts: object) -> UserError | None:
    """The error that a model whose `facts` are known will give, or None.

    `facts` are those of `stages.load.model_kind`; what they do not tell is taken to be there.
    """
    if dataset.has_ids:
        return None
    if getattr(facts, "tokenizer", None) is False:
        return no_tokenizer()
    chat = getattr(dataset, "has_conversations", False)
    if chat and getattr(facts, "chat_template", None) is False:
        return no_chat_template()
    return None


def no_tokenizer() -> UserError:
    return UserError(
        "the model comes without a tokenizer, so no text can be made tokens of",
        remedy="put its tokenizer files (tokenizer.json, tokenizer_config.json) beside the weights",
    )


def no_chat_template() -> UserError:
    return UserError(
        "the dataset holds conversations, but the model has no chat template",
        remedy="use a dataset of text (dataset.messages_column=null), or a chat model",
    )
