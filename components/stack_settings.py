"""The stack's configuration, read and judged whole: nothing else in the program reads it."""

from datetime import UTC, datetime

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from cluster.settings.model import NAMESPACE, Settings
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.stack_checks import DEFAULT_TAGS, stack_problems


def stack_settings() -> Settings:
    """The settings of the current stack, or a `pulumi.RunError` that lists everything wrong with them."""
    # `pulumi.Config` answers for keys that one knows; unknown ones are to be seen as well.
    prefix = f"{NAMESPACE}:"
    config, stack = CONFIG.get(), pulumi.get_stack()
    raw = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    secret_keys = {key for key in raw if is_config_secret(prefix + key)}
    problems = stack_problems(pulumi.get_project(), stack, config.get(DEFAULT_TAGS))
    try:
        settings = read_settings(raw, secret_keys, datetime.now(UTC))
    except SettingsError as error:
        problems = str(error).splitlines() + problems
    else:
        if not problems:
            return settings
    raise pulumi.RunError(
        "\n".join(
            [f"Nothing was touched. What stack {stack} needs changed in its configuration:"]
            + [f"  {line}" for line in problems]
        )
    )
