"""Weights set to zero in training."""
