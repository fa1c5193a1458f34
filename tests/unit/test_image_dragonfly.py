"""The files that a DragonFly image gets beside its world."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from pathlib import Path

import jinja2
import pytest

from dfbuild import releases
from dfbuild.image import dragonfly, identity, templates
from dfbuild.image.dragonfly import Settings
from dfbuild.image.manifest import Names, parse_log
from dfbuild.workspace import Workspace

SETTINGS = Settings(authorized_key="ssh-rsa AAAAB3Nza", root="ad0s1a", swap="ad0s1b")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return {name: content.decode("ascii") for name, content in dragonfly.files(SETTINGS).items()}


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_console_is_serial_from_boot2_on(files: dict[str, str]) -> None:
    assert files["boot.config"].split() == ["-h", "-n"], "one argument each: boot2 takes letters after one dash too"
    assert 'console="comconsole"' in files["boot/loader.conf"].splitlines()
    assert 'autoboot_delay="0"' in files["boot/loader.conf"].splitlines()


def test_the_console_is_as_fast_as_the_shell_wants_it(files: dict[str, str]) -> None:
    """`siosetwater` of sys/dev/serial/sio/sio.c: what the driver holds of a line that comes at once."""
    (setting,) = (words[0] for words in lines(files["etc/sysctl.conf"]))
    name, _, speed = setting.partition("=")
    assert name == "machdep.conspeed"
    buffer = 128
    while buffer < int(speed) // 10 // 100 * 4:
        buffer *= 2
    for release in ("1.0", "1.2", "1.4"):
        assert releases.load(release).shell.serial.line + 1 <= buffer


def test_who_may_log_in_where(files: dict[str, str]) -> None:
    terminals = {words[0]: " ".join(words[1:]) for words in lines(files["etc/ttys"])}
    assert terminals["ttyd0"] == '"/usr/libexec/getty std.115200" vt100 on secure'
    assert [name for name, what in terminals.items() if re.search(r"\bon\b", what)] == ["ttyd0"]
    assert len([name for name, what in terminals.items() if what == "none network"]) == 128
    assert files["root/.ssh/authorized_keys"].split()[:2] == SETTINGS.authorized_key.split()
    options = {words[0]: words[1] for words in lines(files["etc/ssh/sshd_config"])}
    assert (options["Protocol"], options["PasswordAuthentication"]) == ("2", "no")
    assert "UsePAM" not in options, "OpenSSH 3.5 does not know it"


def test_modes_of_secrets(files: dict[str, str]) -> None:
    told = parse_log(dragonfly.log(), Names({}, {}))
    assert told["root/.ssh/authorized_keys"]["mode"] == 0o600
    assert told["etc/ssh/ssh_host_rsa_key"]["mode"] == 0o600
    assert told["root/.ssh"]["mode"] == 0o700


def test_file_systems(files: dict[str, str]) -> None:
    assert lines(files["etc/fstab"]) == [
        ["/dev/ad0s1a", "/", "ufs", "rw,async,noatime", "1", "1"],
        ["/dev/ad0s1b", "none", "swap", "sw", "0", "0"],
        ["proc", "/proc", "procfs", "rw", "0", "0"],
    ]
    without = dragonfly.files(Settings(authorized_key="x", root="ad0s1a"))["etc/fstab"].decode()
    assert "swap" not in without and len(lines(without)) == 2


def test_rc_conf_is_sh(files: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "rc.conf"
    script.write_text(files["etc/rc.conf"])
    done = subprocess.run(
        ["sh", "-euc", f'. {script}; echo "$hostname $ifconfig_em0 $defaultrouter $sshd_enable $cron_enable"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "dfly inet 10.0.2.15 netmask 255.255.255.0 10.0.2.2 YES NO"
    network = ipaddress.ip_network("10.0.2.15/255.255.255.0", strict=False)
    assert ipaddress.ip_address("10.0.2.2") in network


def test_the_suites_own_the_second_card(files: dict[str, str]) -> None:
    assert "ifconfig_em1" not in files["etc/rc.conf"]


def test_an_unknown_name_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        templates.render_tree(templates.images("dragonfly") / "root", {"hostname": "dfly"})


def test_keys_of_the_time(tmp_path: Path) -> None:
    """OpenSSH 3 reads RSA keys in OpenSSL's own format, and paramiko the same."""
    import paramiko

    made = identity.ensure(Workspace(tmp_path), "old", identity.Kind.RSA)
    assert made.host_key.read_bytes().startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert made.host_key.stat().st_mode & 0o777 == 0o600
    kind, data = made.client_public.split()
    key = paramiko.RSAKey.from_private_key_file(str(made.client_key))
    assert (kind, data) == ("ssh-rsa", key.get_base64())
    assert identity.ensure(Workspace(tmp_path), "old", identity.Kind.RSA) == made
