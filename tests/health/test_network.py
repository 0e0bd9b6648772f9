"""The network rule, over every form of a forbidden address."""

import socket
from ipaddress import ip_address, ip_network

import pytest

from service_registry.health.network import DENIED, ForbiddenAddress, NetworkRule, parse_address

EVERYTHING = NetworkRule([ip_network("0.0.0.0/0"), ip_network("::/0")])
PRIVATE = NetworkRule([ip_network("10.0.0.0/8"), ip_network("fd12::/16")])
LOOPBACK = NetworkRule([ip_network("127.0.0.0/8")])

FORBIDDEN = [
    *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
    *("192.0.0.192", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254"),
    # IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, ISATAP, Teredo, NAT64 of the site.
    *("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:7f00:1::8", "2001:db8::5efe:7f00:1"),
    *("2001:db8::200:5efe:7f00:1", "2001:0:7f00:1::1", "64:ff9b:1::7f00:1", "::ffff:169.254.169.254"),
    *("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::a9fe:a9fe"),
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_address_of_the_deny_list_is_forbidden_even_where_everything_is_allowed(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="never checked"):
        EVERYTHING.require(parse_address(address), 80)


@pytest.mark.parametrize("address", ["10.0.0.1", "10.255.255.255", "fd12::1", "::ffff:10.1.2.3"])
def test_address_of_an_allowed_network_is_allowed(address: str) -> None:
    PRIVATE.require(ip_address(address), 80)


@pytest.mark.parametrize("address", ["11.0.0.1", "192.168.0.1", "8.8.8.8", "fd13::1", "::ffff:11.0.0.1"])
def test_address_outside_the_allowed_networks_is_forbidden(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="REGISTRY_HEALTH_NETWORKS"):
        PRIVATE.require(ip_address(address), 80)


@pytest.mark.parametrize("address", ["64:ff9b::a00:1", "2002:a00:1::1", "::10.0.0.1", "2001:db8::5efe:a00:1"])
def test_both_an_address_and_the_one_inside_it_must_be_allowed(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="REGISTRY_HEALTH_NETWORKS"):
        PRIVATE.require(ip_address(address), 80)
    EVERYTHING.require(ip_address(address), 80)


def test_nothing_is_allowed_by_an_empty_list() -> None:
    with pytest.raises(ForbiddenAddress):
        NetworkRule([]).require(ip_address("10.0.0.1"), 80)


@pytest.mark.parametrize("network", DENIED)
def test_network_of_the_deny_list_is_allowed_where_it_is_named_exactly(network: object) -> None:
    address = ip_network(str(network))[0]
    with pytest.raises(ForbiddenAddress):
        NetworkRule([ip_network("0.0.0.0/0"), ip_network("::/0")]).require(address, 80)
    NetworkRule([ip_network(str(network)), ip_network("0.0.0.0/0"), ip_network("::/0")]).require(address, 80)


def test_part_of_a_denied_network_is_not_allowed_by_its_own_name() -> None:
    with pytest.raises(ForbiddenAddress, match="never checked"):
        NetworkRule([ip_network("127.0.0.1/32")]).require(ip_address("127.0.0.1"), 80)


def test_ports_of_the_registry_are_forbidden_on_every_address_of_this_machine() -> None:
    rule = NetworkRule([*LOOPBACK.allowed, ip_network("10.0.0.0/8")], own_ports=[5432])
    for address in ("127.0.0.1", "127.0.0.53", "::ffff:127.0.0.1"):
        with pytest.raises(ForbiddenAddress, match="belongs to the registry"):
            rule.require(ip_address(address), 5432)
    rule.require(ip_address("127.0.0.1"), 5433)
    rule.require(ip_address("10.255.255.254"), 5432)


def test_parts_of_the_registry_on_other_machines_are_forbidden() -> None:
    rule = NetworkRule(PRIVATE.allowed, own=[(ip_address("10.0.0.9"), 6379)])
    with pytest.raises(ForbiddenAddress, match="belongs to the registry"):
        rule.require(ip_address("10.0.0.9"), 6379)
    rule.require(ip_address("10.0.0.9"), 6380)


@pytest.mark.parametrize(
    "name", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "\uff11\uff12\uff17.0.0.1", "localhost"]
)
def test_every_spelling_that_the_resolver_takes_is_judged_by_its_address(name: str) -> None:
    found = {parse_address(str(entry[4][0])) for entry in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    assert found
    with pytest.raises(ForbiddenAddress):
        EVERYTHING.require_all(found, 80)
