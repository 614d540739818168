"""The report of a pipeline's run: its evaluation, or with a sweep all amounts of labels in one."""
