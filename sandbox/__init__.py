"""A local cloud on which AWS programs run unmodified."""
