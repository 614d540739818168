"""The baseline: the same labels, network and number of steps, and no unlabelled scan."""
