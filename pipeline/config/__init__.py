"""The config: composition, strict schema, overrides, help on keys, and Hydra errors explained."""
