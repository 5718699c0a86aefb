"""Hosts of this package, one file or folder each; only the command line imports them."""
