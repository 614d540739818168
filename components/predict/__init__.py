"""Segment scans with a published model: one, or thousands on a cluster."""
