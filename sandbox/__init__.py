"""A local cloud that an unmodified AWS program cannot tell from EC2."""
