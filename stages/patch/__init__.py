"""Stages patch and outline: the blueprint of a model, with modules made compressible."""
