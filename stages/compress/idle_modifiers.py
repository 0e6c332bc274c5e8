"""Plan-time checks of modifiers that would do nothing, or something that was not said."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import UserError
from stages.compress.config import CompressConfig
from stages.model.blueprint import Blueprint
from stages.schemes.resolve import Resolution


def idle_modifiers(
    config: CompressConfig, blueprint: Blueprint, found: Resolution
) -> Iterator[UserError]:
    """One error for every modifier that would change nothing of the model."""
    for modifier in config.modifiers:
        reason = modifier.idle(blueprint)
        if not found.modules and not config.scheme.candidates:
            reason = "the scheme quantizes no weights"
        if reason:
            yield UserError(
                f"modifier {modifier.kind!r} would do nothing: {reason}",
                remedy="leave it out: modifier=[] for none at all",
            )


def rounding_note(config: CompressConfig) -> Iterator[str]:
    """What happens to the weights after transforms, where no solver is named."""
    if config.transforms and config.solver is None and config.scheme.formats():
        kinds = [transform.kind for transform in config.transforms]
        yield (
            f"no solver is named: after {', '.join(kinds)} weights are rounded to nearest; say "
            f"modifier=[{','.join([*kinds, 'gptq'])}] for GPTQ"
        )
