"""Methods that communicate seldom: outer loops around local optimizers."""
