"""Shrunken instances: small random models of a given class, on which structure is proven."""

from stages.model.shrunken.instance import Shrunken, instance, randomize, shrunken, tokens

__all__ = ["Shrunken", "instance", "randomize", "shrunken", "tokens"]
