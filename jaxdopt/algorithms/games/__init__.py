"""Methods for the equilibria of games, which are roots of an operator."""
