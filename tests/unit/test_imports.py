"""Checks which folder imports which, in every Python file of the project."""

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.project import PROJECT

EVERYTHING = {
    "__main__",
    "bench",
    "cluster",
    "components",
    "operations",
    "policy",
    "sandbox",
    "templates",
    "tests",
}
MAY_IMPORT: Mapping[str, set[str]] = {
    "cluster": {"cluster"},
    "components": {"cluster", "components"},
    "__main__": {"cluster", "components"},
    "policy": {"cluster", "policy"},
    "operations": {"cluster", "operations", "policy"},
    "sandbox": {"sandbox"},
    "templates": set(),
    "tests": EVERYTHING,
    "bench": EVERYTHING,
}
MAY_CHANGE_SYS_PATH = {
    "policy/__main__.py",  # Pulumi runs `python policy`, which puts only that folder on the path.
}


def find_violations(file: str, source: str) -> list[str]:
    """Returns the violations of a file, one line each. `file` is relative to the project."""
    tree = ast.parse(source, file)
    folder = Path(file).parts[0].removesuffix(".py")
    violations = [
        f"{file}:{line}: {folder} must not import {module}"
        for line, module in find_imports(file, tree)
        if is_forbidden(folder, module.partition(".")[0])
    ]
    if file not in MAY_CHANGE_SYS_PATH:
        violations += [f"{file}:{line}: no module may use sys.path" for line in find_sys_path(tree)]
    return violations


def is_forbidden(folder: str, package: str) -> bool:
    if folder == "cluster" and package.startswith("pulumi"):
        return True
    return package in EVERYTHING - MAY_IMPORT[folder]


def find_imports(file: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the line and the full name of each imported module, also of imports inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            parents = Path(file).parts[: -node.level] if node.level else ()
            yield node.lineno, ".".join([*parents, *filter(None, [node.module])])


def find_sys_path(tree: ast.Module) -> Iterator[int]:
    """Yields each line that mentions `sys.path` or calls `site.addsitedir`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {("sys", "path"), ("site", "addsitedir")}:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module, name.name) for name in node.names}
            if names & {("sys", "path"), ("site", "addsitedir")}:
                yield node.lineno


def list_python_files() -> list[str]:
    files: list[str] = []
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        files += [str((Path(folder) / name).relative_to(PROJECT)) for name in names if name.endswith(".py")]
    return sorted(files)


def test_every_import_follows_the_layout():
    files = list_python_files()
    assert {Path(file).parts[0].removesuffix(".py") for file in files} == EVERYTHING
    violations = [
        violation for file in files for violation in find_violations(file, (PROJECT / file).read_text())
    ]
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize("file", sorted(MAY_CHANGE_SYS_PATH))
def test_an_exception_for_sys_path_is_still_needed(file: str):
    assert list(find_sys_path(ast.parse((PROJECT / file).read_text())))


@pytest.mark.parametrize(
    ("file", "source", "violation"),
    [
        ("cluster/plan.py", "import pulumi", "cluster must not import pulumi"),
        ("cluster/plan.py", "from pulumi_aws import ec2", "cluster must not import pulumi_aws"),
        ("cluster/plan.py", "import components.site", "cluster must not import components.site"),
        ("cluster/settings/model.py", "from policy.rules import RULES", "cluster must not import policy.rules"),
        ("components/site.py", "from operations import engine", "components must not import operations"),
        ("components/site.py", "import __main__", "components must not import __main__"),
        ("__main__.py", "from sandbox.cloud import dns", "__main__ must not import sandbox.cloud"),
        ("policy/rules.py", "from components import site", "policy must not import components"),
        ("operations/engine.py", "import os, components", "operations must not import components"),
        ("sandbox/cloud/dns.py", "import cluster.derived_keys as keys", "sandbox must not import cluster.derived_keys"),
        ("sandbox/bin/up.py", "def up():\n    import tests", "sandbox must not import tests"),
        ("sandbox/cloud/dns.py", "import sys\nsys.path.insert(0, '..')", "no module may use sys.path"),
        ("tests/project.py", "import sys\nsys.path += ['..']", "no module may use sys.path"),
        ("bench/streams.py", "from sys import path", "no module may use sys.path"),
        ("operations/engine.py", "import site\nsite.addsitedir('..')", "no module may use sys.path"),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_reported(file: str, source: str, violation: str):
    assert find_violations(file, source) == [f"{file}:{len(source.splitlines())}: {violation}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cluster/plan.py", "import pydantic\nfrom cluster.settings import model"),
        ("cluster/settings/reader.py", "from . import model\nfrom ..derived_keys import KeyPair"),
        ("components/site.py", "import pulumi\nfrom cluster import plan\nfrom components import machine"),
        ("__main__.py", "import cluster.plan\nimport components.site"),
        ("policy/rules.py", "from cluster.port_table import Source\nfrom policy import resource"),
        ("operations/engine.py", "import cluster.plan, policy.rules, operations.table"),
        ("sandbox/cloud/dns.py", "import moto\nfrom sandbox.cloud import network"),
        ("tests/project.py", "import __main__, bench, components, operations, sandbox"),
        ("policy/__main__.py", "import sys\nsys.path.insert(0, '..')"),
    ],
)
def test_an_allowed_import_is_not_reported(file: str, source: str):
    assert find_violations(file, source) == []
