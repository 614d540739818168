"""A sweep: every method, with every amount of labels and every seed."""
