"""The addresses and ports on which the service listens."""

import errno
import socket
import time

PORT_TIMEOUT_SECONDS = 5.0
"""Seconds to wait for the port to become free, because the workers of a killed server need some time to exit."""


class CannotListenError(Exception):
    """The service cannot listen on an address or a port. The message says what the operator can do."""


def bind(address: tuple[str, int], *, reuse_port: bool) -> socket.socket:
    """Return a socket that is bound to an IP address or host name and a port.

    Raises:
        OSError: the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    bound_socket = socket.socket(family)
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound_socket.bind(address)
    except OSError:
        bound_socket.close()
        raise
    return bound_socket


def wait_for_port(host: str, port: int) -> None:
    """Wait until the service can listen on the port.

    Raises:
        CannotListenError: the port does not become free in time, or cannot be used.
    """
    deadline = time.monotonic() + PORT_TIMEOUT_SECONDS
    while True:
        try:
            bind((host, port), reuse_port=False).close()
        except socket.gaierror:
            raise CannotListenError(
                f"There is no host {host}: set --host to an IP address of this machine, such as 127.0.0.1 or 0.0.0.0."
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise CannotListenError(
                    f"{host} is not an address of this machine: set --host to one, such as 127.0.0.1 or 0.0.0.0."
                ) from None
            if time.monotonic() > deadline:
                raise CannotListenError(
                    f"Cannot listen on {host} port {port}: {error.strerror}. Choose another port with --port."
                ) from None
            time.sleep(0.1)
        else:
            return
