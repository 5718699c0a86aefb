"""``report``: evaluations as one HTML page."""
