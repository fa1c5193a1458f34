"""From an address to an SSH connection that has proven who answers, and has let us in."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dfbuild.deadline import Deadline
from dfbuild.errors import DeadlineExceeded, DfbuildError, UsageError
from dfbuild.model import Login
from dfbuild.releases.schema import SshShell as SshData
from dfbuild.shell.errors import HostKeyMismatch, LoginRefused, ShellLost

if TYPE_CHECKING:
    from paramiko import PKey, Transport
    from paramiko.transport import SecurityOptions

_FIRST_RETRY, _LAST_RETRY = 0.05, 0.5
_BANNER = 10.0
"""Seconds for a server that took the connection to say its name. QEMU takes it long before the guest does."""
_KEEPALIVE = 5
_WINDOW = 16 << 20
_PACKET = 32 << 10
_LOG = "dfbuild.ssh"

# One kind of RSA key goes by several names of signature algorithms.
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}


def connect(address: tuple[str, int], login: Login, data: SshData, deadline: Deadline) -> Transport:
    """A connection whose host key is the pinned one and whose login was accepted.

    Waits until the guest answers. Raises `HostKeyMismatch`, `LoginRefused`, `ShellLost`, `DeadlineExceeded`,
    `Cancelled`, and `UsageError` for algorithms that the library does not speak.
    """
    import paramiko

    if not login.host_key.strip():
        raise HostKeyMismatch("no host key is pinned for this guest", hint="its image must name one")
    logging.getLogger(_LOG).addHandler(logging.NullHandler())
    delay = _FIRST_RETRY
    while True:
        with _reached(address, deadline) as connection:
            try:
                return _enter(connection, login, data, deadline)
            except paramiko.AuthenticationException as error:
                raise LoginRefused(f"the guest does not let {login.user!r} in over SSH: {error}") from error
            except paramiko.ssh_exception.IncompatiblePeer as error:
                raise ShellLost(
                    f"no common SSH algorithms: {error}", hint="see [shell.ssh] of the release"
                ) from error
            except DfbuildError:
                raise
            except Exception as error:  # noqa: BLE001 - see below
                # A server that is just starting, or ending, breaks off in the middle; and a broken one makes the
                # library fail in ways of which it has no errors.
                deadline.check("an SSH login")
                last = error
        pause(deadline, delay, f"an SSH login (the last one ended with {last!r})")
        delay = min(2 * delay, _LAST_RETRY)


@contextlib.contextmanager
def interruptible(transport: Transport, deadline: Deadline) -> Iterator[None]:
    """While inside, the passing of the deadline breaks the connection, which wakes all who wait for it.

    For calls into the library that take no deadline.
    """
    connection = transport.sock

    def break_off() -> None:
        with contextlib.suppress(OSError):
            if isinstance(connection, socket.socket):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline.remaining(), break_off)
    timer.daemon = True
    timer.start()
    try:
        with deadline.cancel.subscribed(break_off) if deadline.cancel else contextlib.nullcontext():
            yield
    finally:
        timer.cancel()


def pause(deadline: Deadline, seconds: float, what: str) -> None:
    """Let some time pass before another attempt; cancellation ends it."""
    deadline.check(what)
    with contextlib.suppress(DeadlineExceeded):
        deadline.sooner(seconds).select()
    deadline.check(what)


@contextlib.contextmanager
def _reached(address: tuple[str, int], deadline: Deadline) -> Iterator[socket.socket]:
    """A connection on which the server has begun to say its name, closed on an error."""
    connection = _reach(address, deadline)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _reach(address: tuple[str, int], deadline: Deadline) -> socket.socket:
    what = "an SSH server in the guest"
    delay = _FIRST_RETRY
    while True:
        deadline.check(what)
        with contextlib.suppress(OSError, DeadlineExceeded), contextlib.ExitStack() as stack:
            connection = socket.create_connection(address, timeout=max(0.001, deadline.sooner(_BANNER).remaining()))
            stack.callback(connection.close)
            deadline.sooner(_BANNER).select(connection.fileno(), what=what)
            if connection.recv(1, socket.MSG_PEEK):
                stack.pop_all()
                return connection
        pause(deadline, delay, what)
        delay = min(2 * delay, _LAST_RETRY)


def _enter(connection: socket.socket, login: Login, data: SshData, deadline: Deadline) -> Transport:
    import paramiko

    kind, _, key = login.host_key.strip().partition(" ")
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(
        connection,
        default_window_size=_WINDOW,
        default_max_packet_size=_PACKET,
        disabled_algorithms={"pubkeys": unspoken_signatures(data)},
    )
    transport.daemon = True
    transport.set_log_channel(_LOG)
    transport.banner_timeout = transport.auth_timeout = max(0.001, deadline.remaining())
    try:
        _choose(transport, kind, data)
        with interruptible(transport, deadline):
            transport.start_client(timeout=max(0.001, deadline.remaining()))
        deadline.check("an SSH handshake")
        seen = transport.get_remote_server_key()
        if (seen.get_name(), seen.get_base64()) != (kind, key.split()[0] if key else ""):
            raise HostKeyMismatch(
                f"another machine answers: its host key is {seen.get_name()} {seen.get_base64()}, "
                f"and {login.host_key.strip()} is pinned",
                hint="the guest was not booted from the image that it is said to be",
            )
        with interruptible(transport, deadline):
            _authenticate(transport, login)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(_KEEPALIVE)
    return transport


def unspoken(data: SshData) -> tuple[str, ...]:
    """The algorithms of the release that leave no way to talk: of their kind this library speaks none."""
    import paramiko

    ours, theirs = socket.socketpair()
    with ours, theirs:
        options = paramiko.Transport(ours).get_security_options()
        return tuple(
            name for kind, names in _algorithms(data).items() if not _spoken(options, kind, names) for name in names
        )


def _algorithms(data: SshData) -> dict[str, tuple[str, ...]]:
    """What the release's servers speak, under the library's names for the kinds; without those left to it."""
    kinds = {
        "ciphers": data.ciphers,
        "digests": data.macs,
        "kex": data.kex_algorithms,
        "key_types": data.key_algorithms,
    }
    return {kind: names for kind, names in kinds.items() if names}


def _spoken(options: SecurityOptions, kind: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in getattr(options, kind))


def _choose(transport: Transport, kind: str, data: SshData) -> None:
    """The release's algorithms, and the pinned kind of host key before all others."""
    options = transport.get_security_options()
    for attribute, names in _algorithms(data).items():
        spoken = _spoken(options, attribute, names)
        if not spoken:
            raise UsageError(
                f"the release asks for SSH algorithms that this SSH library does not speak: {', '.join(names)}",
                hint="an older paramiko speaks older algorithms; or use `--via serial`",
            )
        setattr(options, attribute, spoken)
    options.key_types = pinned_first(options.key_types, kind)


def pinned_first(known: Sequence[str], kind: str) -> tuple[str, ...]:
    """`known` host key algorithms, those for keys of `kind` first: a server with several keys shows that one."""
    wanted = [name for name in _SIGNATURES.get(kind, (kind,)) if name in known]
    return (*wanted, *(name for name in known if name not in wanted))


def unspoken_signatures(data: SshData) -> list[str]:
    """RSA signatures that the release's servers neither know nor decline: the library would try them first."""
    return [name for name in _SIGNATURES["ssh-rsa"] if data.key_algorithms and name not in data.key_algorithms]


def _authenticate(transport: Transport, login: Login) -> None:
    import paramiko

    if login.key is not None:
        transport.auth_publickey(login.user, _load(login))
    elif login.password is not None:
        transport.auth_password(login.user, login.password, fallback=False)
    else:
        transport.auth_none(login.user)
    if not transport.is_authenticated():
        raise paramiko.AuthenticationException("another proof is wanted")


def _load(login: Login) -> PKey:
    import paramiko

    try:
        return paramiko.PKey.from_path(login.key)  # type: ignore[arg-type]
    except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise UsageError(f"cannot use the SSH key {login.key}: {error}") from error
