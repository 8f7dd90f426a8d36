"""Reads the stack's configuration from the engine. Nothing else in the program reads it."""

from datetime import UTC, datetime

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from cluster.machine_scripts import find_hook_problem
from cluster.settings.model import NAMESPACE, Settings
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.stack_checks import DEFAULT_TAGS, find_stack_problems
from components.program_end import refuse


def read_stack_settings() -> Settings:
    """Returns the settings of the current stack.

    Ends the program with a list of every mistake in the configuration.
    """
    # `pulumi.Config` reads only keys that the caller names. Unknown keys must be reported too.
    prefix = f"{NAMESPACE}:"
    config, stack = CONFIG.get(), pulumi.get_stack()
    raw = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    secret_keys = {key for key in raw if is_config_secret(prefix + key)}
    problems = find_stack_problems(pulumi.get_project(), stack, config.get(DEFAULT_TAGS))
    try:
        settings = read_settings(raw, secret_keys, datetime.now(UTC))
    except SettingsError as error:
        problems = str(error).splitlines() + problems
        settings = None
    if settings:
        hooks = {"node": settings.hooks.node, "loadBalancer": settings.hooks.load_balancer}
        problems += [
            f'{NAMESPACE}:hooks.{key} is "{path}": {problem}'
            for key, path in hooks.items()
            if path and (problem := find_hook_problem(path))
        ]
    if problems or settings is None:
        header = f"Nothing was changed. Correct the configuration of stack {stack}:"
        refuse("\n".join([header, *(f"  {line}" for line in problems)]))
    return settings
