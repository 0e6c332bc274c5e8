"""A config with the same structure and small numbers: widths, heads, experts, windows, vocabulary.

Coupled fields stay consistent, because what was equal stays equal, a width that was a product of
heads and head dimensions is one afterwards, and ratios of head dimensions are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.model.shrunken.config_fields import Kind, kind_of

HIDDEN = ("hidden_size", "d_model", "n_embd", "dim_model", "embedding_dim", "embed_dim", "emb_dim")
ATTENTION_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    *("decoder_attention_heads",),
)
MULTIPLES = (1, 2, 3, 4, 8, 0.5, 1.5)
"""Widths that are so many times the hidden size stay so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Targets of shrinking; `kept` kinds of fields keep their values."""

    heads: int = 4
    head_dim: int = 16
    experts: int = 8
    chosen: int = 2
    groups: int = 4
    keys: int = 4
    window: int = 8
    state: int = 8
    vocabulary: int = 128
    kept: frozenset[Kind] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What the fields of one (sub-)config are measured against."""

    hidden: int = 0
    heads: int = 0
    head_dim: int = 0
    small_hidden: int = 0
    ratio: float = 1.0
    """Small head dimension over the original one."""


@dataclass(kw_only=True, slots=True)
class Widths:
    """Maps numbers of a config to small ones; equal numbers of a kind to equal ones."""

    sizes: Sizes
    tokens: dict[int, int] = field(default_factory=dict)
    ranks: dict[int, int] = field(default_factory=dict)
    others: dict[int, int] = field(default_factory=dict)
    hiddens: dict[int, int] = field(default_factory=dict)

    def shrink(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config of a small model of the same class."""
        self._collect(config)
        return self._config(config, Scope())

    def _collect(self, config: Mapping[str, Any]) -> None:
        """Give every distinct rank, width and token id of the whole config its small number."""
        fields = list(_numbers(config))
        ranks = sorted({v for name, v in fields if kind_of(name) is Kind.RANK and v > 8})
        self.ranks = {value: 16 + 8 * i for i, value in enumerate(ranks)}
        widths = sorted({v for name, v in fields if kind_of(name) is Kind.WIDTH and v >= 32})
        self.others = {value: 32 + 16 * i for i, value in enumerate(widths)}
        ids = sorted({v for n, v in fields if kind_of(n) is Kind.ID and v >= 8}, reverse=True)
        self.tokens = {value: self.sizes.vocabulary - 1 - i for i, value in enumerate(ids)}

    def _config(self, config: Mapping[str, Any], outer: Scope) -> dict[str, Any]:
        scope = self._scope(config, outer)
        small = {
            str(name): self._config(value, scope)
            if isinstance(value, Mapping)
            else self._field(str(name), value, config, scope)
            for name, value in config.items()
        }
        self._products(config, small, scope)
        return small

    def _scope(self, config: Mapping[str, Any], outer: Scope) -> Scope:
        hidden = next((config[n] for n in HIDDEN if isinstance(config.get(n), int)), 0)
        heads = next((config[n] for n in ATTENTION_HEADS if isinstance(config.get(n), int)), 0)
        if not hidden:
            return outer
        head_dim = config.get("head_dim")
        given = isinstance(head_dim, int) and head_dim > 0
        dim = head_dim if given and isinstance(head_dim, int) else hidden // max(1, heads or 1)
        small_dim = self._small_dim(dim, heads)
        small_heads = self.sizes.heads if heads else 1
        if Kind.HEADS in self.sizes.kept:
            small_heads = heads
        product = small_heads * small_dim if heads else 64
        times = next((t for t in MULTIPLES if heads * dim == t * hidden), 0)
        even = times and product % (32 * times) == 0
        other = product * 3 // 2 if heads else product
        small = self.hiddens.setdefault(hidden, int(product / times) if even else other)
        if Kind.WIDTH in self.sizes.kept:
            small = hidden
        return Scope(
            hidden=hidden,
            heads=heads,
            head_dim=dim,
            small_hidden=small,
            ratio=small_dim / dim if heads else 16 / max(16, dim),
        )

    def _small_dim(self, dim: int, heads: int) -> int:
        if Kind.HEAD_DIM in self.sizes.kept or not heads:
            return dim
        return min(dim, self.sizes.head_dim)

    def _field(self, name: str, value: Any, config: Mapping[str, Any], scope: Scope) -> Any:
        if name == "mrope_section" and isinstance(value, list):
            return _sections(value, scope.ratio)
        if name in ("short_factor", "long_factor") and isinstance(value, list):
            return value[: max(1, round(len(value) * scope.ratio))]
        if isinstance(value, list | tuple):
            return [self._field(name, item, config, scope) for item in value]
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        kind = kind_of(name)
        return value if kind in self.sizes.kept else self._number(kind, value, config, scope)

    def _number(self, kind: Kind, value: int, config: Mapping[str, Any], scope: Scope) -> int:
        sizes = self.sizes
        match kind:
            case Kind.ID:
                return self.tokens.get(value, value)
            case Kind.HEADS:
                return self._heads(value, scope)
            case Kind.KV_HEADS:
                few = value == 1 or value >= max(scope.heads, 1)
                return (1 if value == 1 else sizes.heads) if few else max(1, sizes.heads // 2)
            case Kind.HEAD_DIM:
                return max(4, 4 * round(value * scope.ratio / 4)) if value > 4 else value
            case Kind.GROUPS:
                return min(value, sizes.groups)
            case Kind.CHOSEN_GROUPS:
                return 1 if value == 1 else min(value, sizes.groups // 2)
            case Kind.RANK:
                return self.ranks.get(value, value)
            case Kind.WIDTH:
                return self._width(value, scope)
            case Kind.SHARES:
                return min(value, 2)
            case Kind.KEYS:
                return min(value, sizes.keys)
        most = {
            Kind.VOCABULARY: sizes.vocabulary,
            Kind.EXPERTS: sizes.experts,
            Kind.CHOSEN: sizes.chosen,
            Kind.WINDOW: sizes.window,
            Kind.STATE: sizes.state,
        }
        return min(value, most.get(kind, value))

    def _heads(self, value: int, scope: Scope) -> int:
        heads = self.sizes.heads
        if value <= 2:
            return value
        if not scope.heads or value == scope.heads:
            return heads
        return 2 * heads if value > scope.heads else heads // 2

    def _width(self, value: int, scope: Scope) -> int:
        if value < 32:
            return value
        for hidden, small in self.hiddens.items():
            if value == hidden:
                return small
        if scope.hidden:
            for times in MULTIPLES:
                if value == times * scope.hidden:
                    return int(times * scope.small_hidden)
        return self.others[value]

    def _products(self, config: Mapping[str, Any], small: dict[str, Any], scope: Scope) -> None:
        """Keep widths that are heads x head dimension, and heads that share the hidden size."""
        kinds = {n: kind_of(str(n)) for n, v in config.items() if type(v) is int and v > 0}
        if self.sizes.kept & {Kind.HEADS, Kind.HEAD_DIM, Kind.WIDTH}:
            return
        for heads in (n for n, kind in kinds.items() if kind is Kind.HEADS):
            for dim in (n for n, kind in kinds.items() if kind is Kind.HEAD_DIM):
                product = config[heads] * config[dim]
                if scope.heads and heads in ATTENTION_HEADS:
                    continue
                for times in MULTIPLES:
                    width = int(times * scope.small_hidden)
                    if product == times * scope.hidden and width % small[dim] == 0:
                        small[heads] = width // small[dim]
                        break
                for width_name, kind in kinds.items():
                    if kind is Kind.WIDTH and config[width_name] == product != scope.hidden:
                        small[width_name] = small[heads] * small[dim]


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        items = value if isinstance(value, list | tuple) else (value,)
        yield from ((str(name), item) for item in items if type(item) is int)


def _sections(sections: list[int], ratio: float) -> list[int]:
    """Sections of rotary dimensions, in proportion, whose sum is the small number of pairs."""
    total = round(sum(sections) * ratio)
    small = [max(1, int(section * ratio)) for section in sections]
    for i in range(abs(total - sum(small))):
        at = i % len(small) if total > sum(small) else small.index(max(small))
        small[at] += 1 if total > sum(small) else -1
    return small
