"""presswork's framework: graph, keys, store, plan, runner. It knows no language model."""
