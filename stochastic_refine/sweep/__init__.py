"""``sweep``: a grid of operating points, and which of them are best."""
