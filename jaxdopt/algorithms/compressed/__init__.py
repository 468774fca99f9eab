"""Methods that send compressed messages."""
