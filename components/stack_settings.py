"""The stack's configuration, read and judged whole: the only place that knows `pulumi.Config`."""

from components.settings import Settings


def stack_settings() -> Settings:
    """The settings of the current stack, or a `pulumi.RunError` that lists everything wrong with them."""
    raise NotImplementedError
