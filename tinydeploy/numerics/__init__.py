"""Do the integer arithmetic that reference and generated C share."""
