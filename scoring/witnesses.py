"""Which servers have given something: one of these that gives nothing any more has gone away, and ends the run."""

from scoring.services import last_link

MOST_SERVERS = 10_000
"""Servers of which it is kept that they gave something."""


def server_of(address: str) -> str:
    """Who answers for an address: the host with its port, or the bucket."""
    protocol, _, rest = last_link(address).partition("://")
    return f"{protocol}://{rest.partition('/')[0]}/"


class Witnesses:
    """An address that gave something, for each of the first 10,000 servers. Silent, too, the server is gone."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def trust(self, address: str) -> bool:
        """Take note that an address gave something, in this run or an earlier one. Whether it is its server's first."""
        server = server_of(address)
        is_known = server in self._addresses
        if not is_known and len(self._addresses) == MOST_SERVERS:
            return False
        self._addresses[server] = address
        return not is_known

    def of(self, address: str) -> str | None:
        """The witness of the address's server, if any."""
        return self._addresses.get(server_of(address))


_witnesses = Witnesses()


def share(witnesses: Witnesses) -> None:
    """Keep the witnesses of this process there from now on, for a run of several processes."""
    global _witnesses
    _witnesses = witnesses


def trust(address: str) -> None:
    """Take note that an address gave something."""
    _witnesses.trust(address)


def witness_of(address: str) -> str | None:
    """An address of the same server that gave something, if any did."""
    return _witnesses.of(address)
