"""Which URLs and addresses an output may come from."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.providers.netguard import ForbiddenAddress, ForbiddenUrl, Guard, is_public

PUBLIC = Guard()
HOME = Guard(loopback=True)

GOOD_ADDRESSES = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"]
MAPPED_GOOD = ["::ffff:8.8.8.8", "64:ff9b::808:808"]
_ROWS = (
    "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.9.9.9 169.254.169.254",
    "169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1",
    "203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16",
    ":: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::8.8.8.8 64:ff9b::7f00:1",
    "64:ff9b::a00:1 64:ff9b:1::808:808 100::1 2001::1 2001:db8::1 2001:2::1 2002:7f00:1:: 2002:808:808:: fc00::1",
    "fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1 3fff::1 5f00::1",
    "localhost 1.1.1 0x7f.1 017700000001 2130706433 nonsense",
)
BAD_ADDRESSES = [address for row in _ROWS for address in row.split()]


@pytest.mark.parametrize("address", GOOD_ADDRESSES + MAPPED_GOOD)
def test_public(address: str) -> None:
    assert is_public(address)
    assert PUBLIC.allows(address)


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_not_public(address: str) -> None:
    assert not is_public(address)
    assert not PUBLIC.allows(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "8.8.8.8"])
def test_at_home_loopback_is_allowed_too(address: str) -> None:
    assert HOME.allows(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1"])
def test_at_home_other_private_networks_are_not(address: str) -> None:
    assert not HOME.allows(address)


@given(st.integers(0, 2**32 - 1))
def test_an_address_in_disguise_is_as_good_as_itself(number: int) -> None:
    plain = socket.inet_ntoa(number.to_bytes(4, "big"))
    assert is_public(f"::ffff:{plain}") == is_public(plain) == is_public(f"64:ff9b::{plain}")
    assert not is_public(f"::{plain}")
    assert not is_public(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1")


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.reapi.ai/media/tasks/task_1/0.mp4",
        "https://cdn.reapi.ai:443/0.mp4",
        "HTTPS://CDN.reapi.ai/0.mp4",
        "https://cdn.reapi.ai",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://cdn.reapi.ai/a?sig=a%2Bb%2f~c+d&e=%7E",
        "https://cdn.example/ä",
    ],
)
def test_good_urls(text: str) -> None:
    assert PUBLIC.check(text).scheme == "https"


@pytest.mark.parametrize("text", ["https://h.example/a%2Fb?x=%7E&y=a+b%20c&z=%c3%a4", "https://h.example/a//b/./%2e"])
def test_a_signed_url_is_not_respelled(text: str) -> None:
    assert str(PUBLIC.check(text)) == text
    assert str(PUBLIC.check(text + "#part")) == text


BAD_URLS = [
    "",
    "cdn.reapi.ai/0.mp4",
    "//cdn.reapi.ai/0.mp4",
    "/0.mp4",
    "http://cdn.reapi.ai/0.mp4",
    "ftp://cdn.reapi.ai/0.mp4",
    "file:///etc/passwd",
    "data:video/mp4;base64,AAAA",
    "javascript:alert(1)",
    "https:",
    "https://",
    "https:///x",
    "https://user@cdn.reapi.ai/",
    "https://user:pw@cdn.reapi.ai/",
    "https://@cdn.reapi.ai/",
    "https://8.8.8.8@127.0.0.1/",
    "https://cdn.reapi.ai:80/",
    "https://cdn.reapi.ai:8443/",
    "https://cdn.reapi.ai:0/",
    "https://cdn.reapi.ai:99999/",
    "https://cdn.reapi.ai:x/",
    "https://cdn.reapi.ai\\@127.0.0.1/",
    "https://cdn.reapi.ai/a b",
    "https://cdn.reapi.ai/a\r\nX: y",
    "https://cdn.reapi.ai/\x00",
    " https://cdn.reapi.ai/",
    "https://[::1",
    "https://" + "a" * 9000 + ".example/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://0x7f.0.0.1/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://0/",
    "https://1.2.3.4.5/",
    "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254]/",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
]


@pytest.mark.parametrize("text", BAD_URLS)
def test_bad_urls(text: str) -> None:
    with pytest.raises(ForbiddenUrl):
        PUBLIC.check(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/0.mp4",
        "http://localhost:1/x",
        "https://127.0.0.1:8443/x",
        "http://[::1]:8/x",
        "https://h.example/",
    ],
)
def test_at_home_http_and_any_port(text: str) -> None:
    assert str(HOME.check(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://cdn.reapi.ai/",
        "https://cdn.reapi.ai:8443/",
        "http://10.0.0.1:80/",
        "http://0.0.0.0:80/",
        "http://169.254.169.254/",
        "http://127.1:80/",
        "http://user@127.0.0.1/",
        "file://localhost/etc/passwd",
        "http://localhost.evil.example/",
    ],
)
def test_at_home_nothing_else(text: str) -> None:
    with pytest.raises(ForbiddenUrl):
        HOME.check(text)


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://b.example/x", "https://b.example/x"),
        ("/y?z=%2F", "https://a.example/y?z=%2F"),
        ("//b.example/x", "https://b.example/x"),
        ("?q", "https://a.example/dir/file?q"),
    ],
)
def test_redirects(location: str, leads_to: str) -> None:
    start = PUBLIC.check("https://a.example/dir/file")
    assert str(PUBLIC.follow(start, location)) == leads_to


@pytest.mark.parametrize(
    "location",
    [
        *(u for u in BAD_URLS if u[:1] != "/" and u[:3] != "cdn"),
        "//127.0.0.1/x",
        "//user@b.example/",
        "\\\\b.example/x",
    ],
)
def test_redirects_to_bad_places(location: str) -> None:
    start = PUBLIC.check("https://a.example/dir/file")
    with pytest.raises(ForbiddenUrl):
        PUBLIC.follow(start, location)


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,30}(:[0-9]{0,6})?/.{0,20}", fullmatch=True))
def test_check_never_raises_anything_else(text: str) -> None:
    for guard in (PUBLIC, HOME):
        try:
            url = guard.check(text)
        except ForbiddenUrl:
            continue
        assert url.scheme == "https" or guard is HOME
        assert url.raw_user is None
    with contextlib.suppress(ForbiddenUrl):
        PUBLIC.follow(PUBLIC.check("https://a.example/"), text)


def test_sockets() -> None:
    with pytest.raises(ForbiddenAddress):
        PUBLIC.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443)))
    with pytest.raises(ForbiddenAddress):
        PUBLIC.socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fe80::1", 443, 0, 2)))
    with PUBLIC.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 443))) as made:
        assert made.family == socket.AF_INET
    with HOME.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as made:
        assert made.type == socket.SOCK_STREAM
