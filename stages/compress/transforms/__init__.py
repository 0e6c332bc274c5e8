"""Changes of a model that leave its function alone and make it easier to quantize."""
