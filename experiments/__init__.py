"""Experiments: one module a figure, run as ``python -m experiments NAME``."""
