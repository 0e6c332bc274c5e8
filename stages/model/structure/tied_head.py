"""Name of a tied lm_head, as transformers' source of the model's class says it. No torch here.

A tied head has no tensor, so tensor names do not tell it. Importing the class would take seconds;
its source, an attribute `_tied_weights_keys` of literals, is read instead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

USUAL = "lm_head"
NAME = re.compile(r"\w+", re.ASCII)
GENERATES = re.compile(r"^class (\w+(?:ForCausalLM|ForConditionalGeneration|LMHeadModel))\(", re.M)
TIED = re.compile(r"^    _tied_weights_keys = (\{[^}]*\})", re.M)


def tied_head(config: Mapping[str, Any], embeddings: Container[str]) -> str:
    """The module that the class of a parsed config.json ties to its embedding, else `lm_head`.

    `embeddings` are last names of embeddings, which encoder-decoders tie to each other as well.
    The answer is in no key: a release of transformers that renamed a head could load none of the
    checkpoints it had saved.
    """
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else ""
    for weight in _tied(str(config.get("model_type")), str(architecture)):
        module = weight.removesuffix(".weight")
        if module.rpartition(".")[2] not in embeddings:
            return module
    return USUAL


def _tied(model_type: str, architecture: str) -> tuple[str, ...]:
    """The parameters that a class of transformers ties; none for one that is not there.

    Where config.json names no class, those that generate are asked.
    """
    folder = model_type.replace("-", "_")
    if not NAME.fullmatch(folder):
        return ()
    text = _source(folder)
    for name in [architecture] if architecture else GENERATES.findall(text):
        found = re.search(rf"^class {re.escape(name)}\(.*?(?=^(?:class|@)|\Z)", text, re.M | re.S)
        tied = None if found is None else TIED.search(found[0])
        if tied is not None:
            try:
                return tuple(ast.literal_eval(tied[1]))
            except (ValueError, SyntaxError):
                continue  # not literals alone
    return ()


@cache
def _source(folder: str) -> str:
    """The code of transformers' models in one of its folders; "" where there is none."""
    package = find_spec("transformers")
    for place in (package.submodule_search_locations or ()) if package else ():
        file = Path(place) / "models" / folder / f"modeling_{folder}.py"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return ""
