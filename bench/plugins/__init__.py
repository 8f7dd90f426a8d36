"""Pulumi plugins for the benchmarks: a command provider without machines, and a language host that measures the program."""
