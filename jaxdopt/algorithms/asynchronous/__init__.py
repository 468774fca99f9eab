"""Agents, pairs and clients that never wait."""
