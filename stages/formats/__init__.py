"""The compressed-tensors checkpoint format: packing, quantization_config and checksums."""
