"""Methods that ask for values alone, or make gradients of them."""
