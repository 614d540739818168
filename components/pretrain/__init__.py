"""Stage one: semi-supervised pre-training."""
