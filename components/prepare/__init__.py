"""Raw scans to a dataset version."""
