"""The load stage: where a model comes from. Its weights stay where they are."""
