"""Gradient steps and mixing: exact only in the limit of small stepsizes."""
