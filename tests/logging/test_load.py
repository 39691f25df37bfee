"""How busy a host is: what is seen, who tells it, and what is kept of it."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from flambe.logging import load
from flambe.logging.events import Record
from flambe.logging.recorder import Recorder


def test_a_busy_processor_is_seen() -> None:
    load.measure()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    stop.wait(0.5)
    seen = load.measure()
    stop.set()
    thread.join()
    assert seen["cpu"] > 10
    assert seen["cpus"] >= 1
    assert 0 < seen["memory"] < seen["memory_total"]
    json.dumps(seen, allow_nan=False)


@pytest.mark.parametrize(
    ("program", "gpus"),
    [
        (
            "printf '37, 1024, 16384\\n0, 3, 16384\\n'",
            [
                {"use": 37, "memory": 1 << 30, "memory_total": 1 << 34},
                {"use": 0, "memory": 3 << 20, "memory_total": 1 << 34},
            ],
        ),
        ("echo '[N/A], [N/A], 1'", []),
        ("echo 'No devices were found'; exit 6", []),
    ],
)
def test_gpus_are_seen_as_their_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, gpus: list[dict[str, float]]
) -> None:
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert load.measure()["gpus"] == gpus


def test_a_host_is_watched_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PERIOD", 0.05)
    told: list[Record] = []
    done = threading.Event()

    def send(record: Record) -> None:
        told.append(record)
        if len(told) >= 3:
            done.set()
            threading.Event().wait()  # it is watched for as long as this process lives

    load.watch(send)
    assert done.wait(20)
    assert {(record.kind, record.source) for record in told} == {("load", "")}
    assert all("cpu" in record.value for record in told)


def test_a_line_about_each_host_is_kept_now_and_then(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for worker in range(3):  # all workers of a host tell the same
        for host in ("a", "b"):
            for second in (0, 5, 6, 10):
                value = {"cpu": float(second)}
                recorder.write(
                    [Record("", "load", host, value, None, 1000.0 + second + worker / 10)]
                )
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "hosts.jsonl").read_text().splitlines()]
    kept = [(line["time"], line["cpu"]) for line in lines if line["host"] == "a"]
    assert kept == [(1000.0, 0.0), (1005.0, 5.0), (1010.0, 10.0)]
    assert len(lines) == 6
