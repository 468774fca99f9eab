"""Agents and clients that never wait, and how long rounds take: simulated time."""
