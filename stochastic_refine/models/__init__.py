"""Models: the glue between BasicSR's training loop and the networks."""

# BasicSR imports its models one by one, and after install-into that imports ours: it must come first, and whole.
import basicsr.models  # noqa: F401
