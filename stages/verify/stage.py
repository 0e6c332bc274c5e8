"""Stage `verify`: read a saved checkpoint again and check it against the original."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipeline.errors import UserError
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import COMPRESS_PROCESS, MODEL_PROCESS
from stages.compute.work import CHECK, NODE
from stages.model.blueprint import Blueprint
from stages.schemes.chosen import CHOICE, settled
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from stages.weights.row_bands import streaming_bytes

BYTES_PER_SECOND = 2e8
SECONDS = 2.0
UNPACK = (None, "all", "codes")
LOADERS = (None, "transformers", "none")
LOADING_SECONDS = 6.0
"""Importing transformers, and a model on the meta device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """`original`: also compare the tensors that stay unchanged, byte for byte, with the original.

    `unpack`: compressed-tensors unpacks "all" weights, or loops of our own read the "codes" of
    plain formats, which is much faster; null: codes if nothing was calibrated, else all.
    `loader`: "transformers" also loads the checkpoint as transformers does, without its weights,
    and "none" leaves that out; null: transformers, unless nothing is calibrated by the graph.
    """

    original: bool = True
    unpack: str | None = None
    loader: str | None = None

    def __post_init__(self) -> None:
        if self.loader not in LOADERS:
            raise UserError(
                f"verify.loader is {self.loader!r}",
                remedy="choose one of transformers, none, null",
            )
        if self.unpack not in UNPACK:
            raise UserError(
                f"verify.unpack is {self.unpack!r}", remedy="choose one of all, codes, null"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """The scheme that the checkpoint should have, and what to check."""

    scheme: SchemeConfig = field(default_factory=SchemeConfig)
    verify: VerifyOptions = field(default_factory=VerifyOptions)
    """How thoroughly the checkpoint is checked."""
    data_free: bool = False
    """Whether it is known in advance that nothing is calibrated."""

    def codes(self, *, data_free: bool) -> bool:
        """Whether loops of our own read the weights, where nothing is calibrated or not."""
        unpack = self.verify.unpack
        return data_free if unpack is None else unpack == "codes"

    @property
    def loads(self) -> bool:
        """Whether the checkpoint is loaded as transformers does."""
        loader = self.verify.loader
        return not self.data_free if loader is None else loader == "transformers"


@dataclass(frozen=True, eq=False)
class Verify(Stage):
    """Output `out`: verify.json with every check. Fails the run where one of them fails."""

    kind = "verify"
    version = 6
    Config = VerifyConfig
    work = ("stages.verify.run",)
    config: VerifyConfig
    outside: bool = True
    """Whether anything outside the layers is compressed; until it is surveyed, it may be."""

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("compressed-tensors", *(("transformers",) if self.config.loads else ()))

    @property
    def also_imports(self) -> tuple[str, ...]:
        if self.config.loads:
            return ("stages.verify.transformers_check",)
        codes = self.config.codes(data_free=self.config.data_free)
        return () if codes else ("compressed_tensors",)

    def consults(self) -> frozenset[str]:
        return frozenset({CHOICE})

    def demands(self) -> dict[str, tuple[str, ...]]:
        return {
            "layers": ("weights",),
            "outside": ("weights",) if self.outside else (),
            "caches": ("scales",) if self.config.scheme.states() else (),
        }

    def survey(self, site: Site) -> Survey:
        blueprint = site.facts.get("model")
        if not isinstance(blueprint, Blueprint):
            return Survey()
        config = settled(self.config, site)
        found = resolve(config.scheme, blueprint).modules
        outside = any(end.name in found for end in blueprint.ends())
        size = sum(layer.bytes for layer in blueprint.layers)
        widest = max(layer.bytes // max(1, len(layer.linears)) for layer in blueprint.layers)
        seconds = SECONDS + size / BYTES_PER_SECOND
        memory = COMPRESS_PROCESS + 16 * widest
        if self.config.codes(data_free=self.config.data_free):
            memory = streaming_bytes(widest)
        if config.loads:
            memory = max(memory, MODEL_PROCESS)
            seconds += LOADING_SECONDS
        work = {CHECK: float(size), NODE: 1.0}
        estimate = Estimate(bytes=4096, memory=memory, seconds=seconds, work=work, reads=size)
        stage = replace(self, config=config, outside=outside)
        return Survey(estimates={None: estimate}, settled=stage)
