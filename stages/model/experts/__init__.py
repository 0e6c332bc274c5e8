"""Routed experts: containers of transformers taken apart into Linears, found by their protocol."""
