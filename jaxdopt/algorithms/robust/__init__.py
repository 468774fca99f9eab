"""Methods for networks some of whose agents lie."""
