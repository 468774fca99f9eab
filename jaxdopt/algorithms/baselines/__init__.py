"""Centralized methods, to compare with."""
