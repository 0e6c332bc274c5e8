"""Statistics of the inputs of a Linear, registered by name in registry group "statistic"."""
