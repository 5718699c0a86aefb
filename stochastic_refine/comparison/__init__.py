"""``evaluate``: systems, protocols, restoring, scoring and tables."""
