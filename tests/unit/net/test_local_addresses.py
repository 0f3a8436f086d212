"""Which addresses are this machine's."""

from __future__ import annotations

from mist.net.local_addresses import LocalAddresses, ipv4_addresses, ipv6_addresses

ROUTES = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 192.0.2.17
        /32 host LOCAL
"""
INTERFACES = """\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000021132fffe445566 02 40 20 80     eth0
20010db8000000000000000000000017 02 40 00 80     eth0
"""


def test_own_addresses_and_no_others() -> None:
    assert ipv4_addresses(ROUTES) == {"127.0.0.0", "127.0.0.1", "192.0.2.17"}
    assert ipv6_addresses(INTERFACES) == {"::1", "fe80::211:32ff:fe44:5566%eth0", "2001:db8::17"}


def test_this_machine() -> None:
    assert "127.0.0.1" in LocalAddresses().get(0.0)
