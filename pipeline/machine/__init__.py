"""This machine: its CPUs, its GPUs, and the memory of GPUs that is in use."""
