"""Matrices of weights in the form that suits their structure."""
