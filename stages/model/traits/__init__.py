"""Traits of architectures that limit what can be done with a model, found in its blueprint."""
