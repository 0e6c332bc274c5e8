"""Observers: scales, zero points and global scales of weights and of calibrated inputs."""
