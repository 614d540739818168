"""Speed and memory, measured against a reference in the same run."""
