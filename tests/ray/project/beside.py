"""A module beside the tasks' file, which a node gets with it."""

WORD = "shipped"
