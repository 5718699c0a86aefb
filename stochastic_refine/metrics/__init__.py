"""Metrics with BasicSR's signature: (img, img2) BGR uint8."""
