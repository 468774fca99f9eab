"""Tables of the library itself, made from its classes and docstrings."""
