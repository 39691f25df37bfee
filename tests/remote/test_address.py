from __future__ import annotations

import pytest

from flambe.remote import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 22),
        ("10.0.0.1:2222", "10.0.0.1", 2222),
        ("gpu-3", "gpu-3", 22),
        ("gpu_3.lab.example.:1", "gpu_3.lab.example.", 1),
        ("fe80::1", "fe80::1", 22),
        ("[fe80::1%eth0]", "fe80::1%eth0", 22),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_addresses_are_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":22",
        "host:",
        "host:0",
        "host:65536",
        "host:ssh",
        "a b",
        "-oProxyCommand=x",
        "[::1",
        "u@h",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        Address.parse(text)
