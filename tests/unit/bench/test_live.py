"""Tests the results of `make bench-live`."""

import json
from pathlib import Path

from bench.live import EVENTS, Result, save_result


def test_an_event_that_is_measured_again_replaces_its_result_only(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    first, second = (event.name for event in EVENTS[:2])
    for result in (Result(second, 1), Result(first, 2), Result("an event of the past", 3), Result(second, 4)):
        save_result(result, file)
    assert [(entry["event"], entry["requests"]) for entry in json.loads(file.read_text())] == [
        (first, 2),
        (second, 4),
    ]
