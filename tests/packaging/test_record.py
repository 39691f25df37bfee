"""The one definition of which files of a RECORD count."""

from __future__ import annotations

from flambe.remote.agent import record

LINES = [
    "pkg/__init__.py,sha256=aaa,1",
    "pkg/__pycache__/__init__.cpython-311.pyc,,",
    "../../../bin/pkg,sha256=bbb,1",
    "pkg-1.0.data/scripts/pkg,sha256=ccc,1",
    "pkg/some.data/table.csv,sha256=ddd,1",
    "pkg-1.0.dist-info/METADATA,sha256=eee,1",
    "pkg-1.0.dist-info/INSTALLER,sha256=fff,1",
    "pkg-1.0.dist-info/RECORD,,",
    "/usr/share/pkg,sha256=ggg,1",
]


def test_only_what_is_the_same_on_every_host_counts() -> None:
    rows = list(record.read_rows(reversed(LINES)))
    assert rows == [
        ("pkg-1.0.dist-info/METADATA", "eee"),
        ("pkg/__init__.py", "aaa"),
        ("pkg/some.data/table.csv", "ddd"),
    ]
    assert record.hash_files(rows) != record.hash_files(rows[:-1])


def test_a_hash_is_encoded_as_a_wheel_has_it() -> None:
    # The example of https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    assert record.encode_sha256(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
