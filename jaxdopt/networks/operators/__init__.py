"""Mixing matrices as operators, in the form that suits their structure."""
