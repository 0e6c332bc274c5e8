"""Nodes in other processes: workers, messages to and from them, the pool that feeds them."""
