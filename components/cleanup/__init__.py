"""The step that runs last, whatever happened."""
