"""Which addresses of the internet a URL from a dataset may lead to: public ones only.

A dataset's URLs are strangers' input; what they must not reach is this machine, its network, and
a cloud's metadata service. The rule is about addresses, not names or spellings: names, octal and
decimal numbers are resolved first, and whoever connects must do so to the address that was checked.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_NAT64 = ip_network("64:ff9b::/96")


class PrivateAddress(Exception):
    """A host has no public address."""


def public_addresses(host: str, port: int) -> list[str]:
    """The public addresses of `host`, in the order in which to try them.

    Raises PrivateAddress where it has none, OSError where it cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 characters, or an empty one
        raise socket.gaierror(socket.EAI_NONAME, f"{host[:100]!r} is no host name") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    public = [address for address in addresses if is_public(address)]
    if not public:
        raise PrivateAddress(f"{host} is {', '.join(addresses[:3])}")
    return public


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is one of the public internet, also where it is wrapped in another."""
    parsed = _unwrapped(ip_address(address.partition("%")[0]))
    site_local = isinstance(parsed, IPv6Address) and parsed.is_site_local
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or site_local)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo's or NAT64's; else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
