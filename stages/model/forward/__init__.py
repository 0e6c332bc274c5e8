"""The forward of a model that has no weights, or other forwards, in some of its modules."""
