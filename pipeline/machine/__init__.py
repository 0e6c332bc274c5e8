"""The machine: its CPUs and GPUs, and what memory they have, without importing torch."""
