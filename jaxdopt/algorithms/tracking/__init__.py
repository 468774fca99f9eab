"""Gradient tracking and its variance-reduced variants."""
