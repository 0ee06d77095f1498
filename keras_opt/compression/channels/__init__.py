"""Whole channels taken out of a model."""
