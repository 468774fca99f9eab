"""Methods that communicate along spanning trees."""
