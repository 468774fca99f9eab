"""Experiments, one module per figure, run as ``python -m experiments NAME``."""
