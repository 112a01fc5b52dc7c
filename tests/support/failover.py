"""A primary Redis, its replica, and one address that a failover by hand moves to the replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.support.caller import until
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.redis_server import RedisServer, redis_server

_PAUSE_MS: Final = 10_000  # more than the replica takes to hear the last write


class Pair:
    """Two servers behind one address."""

    def __init__(self, primary: RedisServer, replica: RedisServer, address: CuttingProxy) -> None:
        self.primary = primary
        self.replica = replica
        self._address = address

    @property
    def url(self) -> str:
        """What REJOIN_REDIS_URL takes: the address that moves."""
        return f"redis://127.0.0.1:{self._address.port}/0"

    async def promote(self) -> None:
        """Make the replica a primary with all that it has by now: it hears of no later write."""
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")

    async def move(self, *, cut: bool) -> None:
        """Demote the old primary and move the address; `cut`: the connections to the old one, too.

        Those that are left open find a server that only reads.
        """
        with self.primary.client() as client:
            self._address.target_port = self.replica.port
            client.replicaof("127.0.0.1", self.replica.port)
        if cut:
            await self._address.cut_all()

    async def fail_over(self, *, cut: bool) -> None:
        """Promote and move without a loss: nobody writes until the replica has everything."""
        with self.primary.client() as client:
            client.client_pause(_PAUSE_MS, all=False)
            try:
                await until(self.in_step)
                await self.promote()
                await self.move(cut=cut)
            finally:
                client.client_unpause()

    async def in_step(self) -> bool:
        """Whether the replica has all that the primary was told."""
        with self.primary.client() as primary, self.replica.client() as replica:
            seen = replica.info("replication")
            up = seen["master_link_status"] == "up"
            sent = primary.info("replication")["master_repl_offset"]
            return bool(up and seen["slave_repl_offset"] == sent)


@asynccontextmanager
async def failover_pair(primary: RedisServer) -> AsyncIterator[Pair]:
    """Give `primary` a replica, in step with it, and an address; both end with the block."""
    with redis_server(appendonly=True) as replica:
        async with cutting_proxy(primary.port) as address:
            pair = Pair(primary, replica, address)
            for server in (primary, replica):
                with server.client() as client:
                    client.config_set("repl-diskless-sync-delay", "0")
            with replica.client() as client:
                client.replicaof("127.0.0.1", primary.port)
            await until(pair.in_step, within=15)
            yield pair
