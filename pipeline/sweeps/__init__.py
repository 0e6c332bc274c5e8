"""Sweeps: what each job leaves, and the one page that is made of it."""
