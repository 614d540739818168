"""Keeping a model in service up to date: new scans, a new model, a decision between the two."""
