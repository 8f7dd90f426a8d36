"""The tables of a stack's outputs."""

from operations.outputs import format_outputs


def test_outputs_are_printed_as_tables_without_haproxy_cfg() -> None:
    nodes = [
        {"name": "origin1", "private_address": "10.0.0.8", "public_address": "198.51.100.7", "role": "origin"}
    ]
    outputs = {
        "play_url": "https://a.test:5443",
        "haproxy_cfg": "global\n",
        "nodes": nodes,
        "names": ["a", "b"],
        "srt_urls": [],
    }
    assert format_outputs(outputs).splitlines() == [
        "play_url  https://a.test:5443",
        "names     a, b",
        "",
        "node     private address  public address",
        "origin1  10.0.0.8         198.51.100.7",
    ]
