"""BasicSR as the host: its training and testing, and clones of it that are to know our names."""
