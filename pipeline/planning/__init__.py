"""From a config to a graph of nodes, and to the nodes that have to run."""
