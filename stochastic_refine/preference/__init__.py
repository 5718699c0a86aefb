"""``study preference``: which of two restored crops people find better."""
