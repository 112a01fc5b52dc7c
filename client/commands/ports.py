"""Ports of this machine: whether one is free, and one that is."""

import socket

from rejoin.shared.errors import SettingsError


def free_port(host: str, port: int = 0) -> int:
    """Return `port` if it can be listened on, for 0 any that can.

    Raises:
        SettingsError: it cannot; the text names the setting.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a connection that has just ended is no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
            probe.listen()
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}, port {port}: {error.strerror or error}; end what does,"
                " or set REJOIN_PORT to another port (0: any that is free)"
            ) from error
        found: int = probe.getsockname()[1]
        return found
