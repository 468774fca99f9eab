"""Exact methods with a dual variable or a correction; symmetric weights."""
