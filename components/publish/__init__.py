"""Publish: the best seed's ARCO model becomes a package that can be used anywhere."""
