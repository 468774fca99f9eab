"""Clients and a server that waits for those who take part."""
