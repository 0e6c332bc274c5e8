"""Sweeps: records of jobs, the leaderboard, and the page made from them."""
