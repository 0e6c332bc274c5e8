"""Modifiers, the values of `modifier=`: transforms first, then one solver."""

from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.keep import Keep
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant

__all__ = ["Gptq", "Keep", "Rtn", "SmoothQuant"]
