"""Names of files and folders in results, and of outputs, that more than one stage reads."""

from __future__ import annotations

MODEL = "model"
"""Folder of a `load` result: config.json, tokenizer and the model's other small files."""
TOKENS = "tokens.safetensors"
"""File of a `tokens` or `excerpt` result: `input_ids` int32 [N, T] and `lengths` int32 [N].

Where only some tokens count in statistics also `counted` uint8 [N, T].
"""
ACTIVATIONS = "activations"
"""Output and input of the stages that run decoder layers: files of hidden states by batch."""
SALIENCY = "saliency"
"""Output of `saliency`, and with .json its file: what each routed expert of a layer adds."""
HIDDEN = "hidden"
"""The tensor [b, T, hidden] in every file of hidden states."""
FISHER_FILE = "fisher.safetensors"
"""File of a `gradient` result: diagonal Fisher information of every Linear's outputs."""
SENSITIVITY = "sensitivity.json"
"""File of a `sensitivity` result: error and bits of every module in every candidate format."""
OUTLIERS = "outliers.json"
"""File of an `owl` result: the share of outliers among the weights of every decoder layer."""
CHECKPOINT = "checkpoint"
"""Folder of a `save` result: the compressed model as loaders read it."""

COUNTED = "counted"
"""Tensor of a `tokens` result, where only some tokens count."""
