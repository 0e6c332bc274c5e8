"""Modifiers, values of `modifier=`: reap, a rotation, transforms, a pruner, then one solver."""

from stages.compress.modifiers.autoround import AutoRound
from stages.compress.modifiers.awq import Awq
from stages.compress.modifiers.constant import Constant
from stages.compress.modifiers.gptaq import Gptaq
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.keep import Keep
from stages.compress.modifiers.log_equalization import LogEqualization
from stages.compress.modifiers.magnitude import Magnitude
from stages.compress.modifiers.reap import Reap
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.modifiers.sparsegpt import SparseGpt
from stages.compress.modifiers.spinquant import SpinQuant
from stages.compress.modifiers.wanda import Wanda

__all__ = [
    "AutoRound",
    "Awq",
    "Constant",
    "Gptaq",
    "Gptq",
    "Keep",
    "LogEqualization",
    "Magnitude",
    "Reap",
    "Rtn",
    "SmoothQuant",
    "SparseGpt",
    "SpinQuant",
    "Wanda",
]
