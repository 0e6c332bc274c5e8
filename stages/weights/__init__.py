"""Weight sources: names, shapes and dtypes from headers, then chosen tensors and nothing else.

No torch is imported before a tensor is read.
"""

from stages.weights.safetensors_source import open_checkpoint
from stages.weights.source import TensorSpec, WeightSource

__all__ = ["TensorSpec", "WeightSource", "open_checkpoint"]
