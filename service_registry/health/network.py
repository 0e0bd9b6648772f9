"""The network rule: the addresses that a health check may connect to.

An allow-list of networks, and a fixed deny-list within it. A registration names the target: without the rule any
service could have the registry call what only the registry can reach (server-side request forgery).
"""

import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from django.conf import settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# `is_global` of the standard library does not do: it allows several of these, and refuses private networks, which are
# what is checked.
DENIED: tuple[Network, ...] = (
    ip_network("0.0.0.0/8"),  # "this host" (RFC 1122, section 3.2.1.3): Linux connects to itself
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),  # link-local, and the metadata services of most clouds
    ip_network("100.100.100.200/32"),  # metadata of Alibaba Cloud
    ip_network("168.63.129.16/32"),  # the host beneath a virtual machine in Azure
    ip_network("192.0.0.0/24"),  # protocol assignments (RFC 6890), and metadata of Oracle Cloud
    ip_network("224.0.0.0/4"),
    ip_network("240.0.0.0/4"),  # reserved, and broadcast
    ip_network("::/128"),
    ip_network("::1/128"),
    ip_network("64:ff9b:1::/48"),  # NAT64 with a prefix of the site (RFC 8215): the place of the IPv4 address varies
    ip_network("100::/64"),  # discard only (RFC 6666)
    ip_network("2001::/32"),  # Teredo (RFC 4380)
    ip_network("fd00:ec2::/32"),  # metadata of AWS
    ip_network("fd20:ce::254/128"),  # metadata of Google Cloud
    ip_network("fe80::/10"),
    ip_network("fec0::/10"),  # site-local, deprecated (RFC 3879)
    ip_network("ff00::/8"),
)
IPV4_COMPATIBLE = ip_network("::/96")  # RFC 4291, section 2.5.5.1
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052, section 2.1
ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214, section 6.1
LOW_32_BITS = 0xFFFF_FFFF


class ForbiddenAddress(Exception):
    """The network rule forbids an address. The message says why, for the result of the check."""


@dataclass(frozen=True)
class NetworkRule:
    """The addresses that a health check may connect to.

    Attributes:
        allowed: networks. One of the deny-list is allowed only where it is named here exactly.
        own: addresses of the registry's own parts, each with its port: never allowed.
        own_ports: the ports of these parts, which are not allowed on any address of this machine.
    """

    allowed: Collection[Network]
    own: Collection[tuple[Address, int]] = ()
    own_ports: Collection[int] = ()

    def require(self, address: Address, port: int) -> None:
        """Return if the address may be connected to. Raises ForbiddenAddress."""
        for each in spellings(address):
            if not any(each in network for network in self.allowed):
                raise ForbiddenAddress(f"{each} is in no network of REGISTRY_HEALTH_NETWORKS")
            for network in DENIED:
                if each in network and network not in self.allowed:
                    raise ForbiddenAddress(f"{each} is in {network}, which is never checked")
            if (each, port) in self.own or (port in self.own_ports and is_of_this_machine(each)):
                raise ForbiddenAddress(f"{each} port {port} belongs to the registry")

    def require_all(self, addresses: Iterable[Address], port: int) -> None:
        """Return if all addresses of a name may be connected to. Raises ForbiddenAddress."""
        for address in addresses:
            self.require(address, port)


def configured_networks() -> frozenset[Network]:
    """Return the allow-list of the settings."""
    return frozenset(map(ip_network, settings.REGISTRY_HEALTH_NETWORKS))


def parse_address(text: str) -> Address:
    """Return an address as the resolver gives it. A scope (`%eth0`) does not change whose address it is."""
    return ip_address(text.partition("%")[0])


def spellings(address: Address) -> Iterator[Address]:
    """Yield the addresses that a packet to this one may reach: itself, and an IPv4 address inside."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            # The kernel sends these packets as IPv4. The form is no address of another network.
            yield address.ipv4_mapped
            return
        if embedded := embedded_ipv4(address):
            yield embedded
    yield address


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address inside an IPv6 address that a gateway or tunnel delivers to it."""
    if address.sixtofour:
        return address.sixtofour
    number = int(address)
    if address in NAT64 or (address in IPV4_COMPATIBLE and number > 1) or (number >> 32) & LOW_32_BITS in ISATAP:
        return IPv4Address(number & LOW_32_BITS)
    return None


def is_of_this_machine(address: Address) -> bool:
    """Return whether an address belongs to this machine.

    The kernel then chooses it as the source of a datagram to itself. Nothing is sent. For all of 127.0.0.0/8 it chooses
    127.0.0.1.
    """
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return parse_address(probe.getsockname()[0]) == address
