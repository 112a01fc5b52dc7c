"""`python -m rejoin.client.commands.fake_redis PORT`: fakeredis as a server of its own."""

import sys

from fakeredis import TcpFakeServer


def main(port: int) -> None:
    """Serve on 127.0.0.1:`port` until a signal ends the process."""
    with TcpFakeServer(("127.0.0.1", port), server_type="redis") as server:
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
