"""Hand a stranger's quantization_config to transformers without slow regular expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.schemes.patterns import MARK, is_quick, matches_pattern


def bounded(config: Mapping[str, Any], modules: Sequence[str]) -> dict[str, Any]:
    """A quantization_config without patterns that `re.match`, which its reader uses, is slow at.

    They are replaced by the names of the modules that they match.
    """

    def named(targets: Iterable[str] | None) -> list[str]:
        found: dict[str, None] = {}
        for target in targets or ():
            slow = target.startswith(MARK) and not is_quick(target)
            matching = (name for name in modules if matches_pattern(target, name))
            found.update(dict.fromkeys(matching if slow else [target]))
        return list(found)

    groups = {
        name: {**group, "targets": named(group["targets"])} if isinstance(group, Mapping) else group
        for name, group in config["config_groups"].items()
    }
    return {**config, "config_groups": groups, "ignore": named(config.get("ignore"))}
