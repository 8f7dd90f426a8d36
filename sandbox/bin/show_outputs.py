"""Prints a stack's outputs, given as JSON on standard input, as people read them: the nodes as a table, no haproxy.cfg."""

import json
import sys

outputs = json.load(sys.stdin)
outputs.pop("haproxy_cfg")
nodes = outputs.pop("nodes")
for name, value in outputs.items():
    print(f"{name:17} {value}")
for node in nodes:
    print(f"{node['name']:17} {node['private_address']:15} {node['public_address']}")
