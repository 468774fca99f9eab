"""Loop-style NumPy reference implementations, written from the published equations."""
