"""Methods that pass over every agent's data in random orders."""
