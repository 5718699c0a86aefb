"""Models: the glue between BasicSR's training loop and the networks."""
