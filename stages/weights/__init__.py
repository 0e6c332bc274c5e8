"""Reading weights: names, shapes and dtypes without data, then chosen tensors and nothing else.

No torch is imported before a tensor is read.
"""

from stages.quantized.open import open_checkpoint, open_source
from stages.weights.source import TensorSpec, WeightSource

__all__ = ["TensorSpec", "WeightSource", "open_checkpoint", "open_source"]
