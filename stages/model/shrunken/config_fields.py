"""Kinds of config fields by their names: heads, widths, windows, experts, token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """Meaning of a number in config.json, as far as shrinking it needs one."""

    DEPTH = "depth"
    ID = "id"
    """The id of a token."""
    VOCABULARY = "vocabulary"
    EXPERTS = "experts"
    CHOSEN = "chosen"
    """Experts that each token is sent to."""
    GROUPS = "groups"
    """Groups of experts, of which a token may use `CHOSEN_GROUPS`."""
    CHOSEN_GROUPS = "chosen_groups"
    KEYS = "keys"
    """Positions, or blocks of them, that sparse attention looks at."""
    WINDOW = "window"
    KV_HEADS = "kv_heads"
    HEADS = "heads"
    HEAD_DIM = "head_dim"
    STATE = "state"
    RANK = "rank"
    SHARES = "shares"
    """Groups of heads or channels that share a projection."""
    WIDTH = "width"
    OTHER = "other"


DEPTH = (
    r"(?:num_|n_)?(?:\w*_)?(?:hidden_)?layers?|depth|depths|num_blocks|\w*layers?_per_stack"
    r"|first_k_dense_replace|\w*_layer_(?:start|end)_index"
)
KINDS: Mapping[Kind, re.Pattern[str]] = {
    kind: re.compile(pattern)
    for kind, pattern in (
        (Kind.ID, r"\w*_token_(?:id|index|ids)|\w+_(?:start|end|newline)_id"),
        (Kind.VOCABULARY, r"\w*vocab_size\w*|encoder_hash_byte_group_vocab|vocab_offset"),
        (Kind.CHOSEN_GROUPS, r"topk_group"),
        (Kind.GROUPS, r"n_group|num_expert_group"),
        (
            Kind.CHOSEN,
            r"num_experts_per_tok(?:en)?|moe_top_?k|moe_k|top_k_experts|experts_per_token",
        ),
        (Kind.EXPERTS, r"(?:moe_)?(?:num|n)_(?:local_|routed_)?experts|zero_expert_num"),
        (Kind.KEYS, r"index_\w*topk\w*|index_block_size|index_kpool|index_local_blocks"),
        (
            Kind.WINDOW,
            r"(?:\w+_)?sliding_window(?:_size)?|attention_window_size|keep_window_size|window_size"
            r"|local_attention|(?:\w+_)?chunk_size|(?:\w+_)?chunk_length|floor_scale"
            r"|\w+_compressed_attention|compressed_\w+_attention|\w*attention_hca|\w*attention_csa",
        ),
        (Kind.KV_HEADS, r"\w*(?:key_value_heads|kv_n_heads|kv_heads|n_head_kv)\w*"),
        (Kind.HEADS, r"\w*(?:_heads|^heads|n_head)(?:_per_layer)?|num_query_groups|n_head"),
        (
            Kind.HEAD_DIM,
            r"\w*head_?dim|\w*d_head|dim_head|\w*head_size|kv_channels|d_kv|rotary_dim",
        ),
        (Kind.STATE, r"\w*d_state|\w*state_size"),
        (Kind.RANK, r"\w*_rank|\w*_lowrank"),
        (Kind.SHARES, r"(?:\w+_)?n_?groups|o_groups"),
        (Kind.DEPTH, DEPTH),
        (
            Kind.WIDTH,
            r"\w*(?:hidden_size|intermediate_size|embed_dim|embd|d_model|n_inner|d_ff|ffn_dim"
            r"|width|ffn_hidden_size|feed_forward_size|mlp_dim|_dim|dim_ff|dff|d_inner|d_ssm"
            r"|embedding_size|size_mlp|expert_dim|intermediate)(?:_global|_per_layer_input)?"
            r"|d_rel|share_expert_dim|multiple_size_of_hidden",
        ),
    )
}
KEEP = re.compile(
    r"(?:image|patch|crop|kernel|merge|pool)\w*_size|conv\w*|num_channels|in_channels"
)
"""Names of what towers count in pixels or steps, which is small, and coupled to fixed shapes."""


def kind_of(name: str) -> Kind:
    """The kind of the field `name`."""
    if KEEP.fullmatch(name):
        return Kind.OTHER
    for kind, pattern in KINDS.items():
        if pattern.fullmatch(name):
            return kind
    return Kind.OTHER
