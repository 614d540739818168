"""The container image of the pipeline's steps and of their Ray clusters."""
