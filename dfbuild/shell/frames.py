"""How a command's answer travels over a console on which the kernel prints whatever and whenever it likes.

The agent in the guest (`agent.py`) prints with the eighth bit set, and everybody else prints ASCII. Dropping the
lower half of all bytes leaves the agent's words whole, however finely kernel messages are woven into them. What is
left to fear, bytes of the upper half in a kernel message, is caught by line lengths and a checksum over the whole,
and only the lines that were hurt are asked for again. Pure functions; `serial.py` does the talking.

Towards the guest goes `VERB SEQ ESCAPED-SEQ LENGTH PAYLOAD`, one line each. A repeated SEQ is answered again and
not done again, so asking once more is always safe. Back come lines of `NONCE:SEQ:` and

    b           the command begins
    s:OOOF      done: exit status in octal, and 1 if there is output
    d:N:TEXT    line N of the encoded output
    e:L:B:SUM   the encoded output has L lines, B bytes and this checksum
    x           your line was hurt, say it again

and to an empty line `HELLO`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dfbuild.shell.coding import Checksum, checksum_of

HELLO = b"dfb?"
"""Tells whoever finds a console what is on it."""

_LOWER_HALF = bytes(range(0x80))
_STRIP = bytes(byte & 0x7F for byte in range(256))
_MOST_LINES = 10_000_000
_LONGEST_LINE = 4096
_MOST_BYTES = 64 << 20
"""Of one answer. What a guest says beyond that is as good as not said."""

Ranges = tuple[tuple[int, int | None], ...]
"""Line numbers, first and last; None for the end."""


def heard(data: bytes) -> bytes:
    """What the agent said in these bytes of the console."""
    return data.translate(_STRIP, delete=_LOWER_HALF)


def upper(text: bytes) -> str:
    r"""`text` as the octal escapes that make printf(1) print it in the upper half: `a` is `\341`."""
    return "".join(f"\\{byte | 0x80:03o}" for byte in text)


def request(verb: bytes, seq: int, payload: bytes = b"") -> bytes:
    """One line to the agent."""
    number = b"%d" % seq
    return b" ".join((verb, number, upper(number).encode(), b"%d" % len(payload), payload)) + b"\n"


@dataclass(slots=True)
class Reply:
    """What was heard so far of the answer to one request."""

    begun: bool = False
    hurt: bool = False
    """The request did not arrive as it was sent."""
    status: int | None = None
    has_output: bool = False
    lines: dict[int, bytes] = field(default_factory=dict)
    total: tuple[int, int, str] | None = None
    """Lines, bytes and checksum of the encoded output."""

    @property
    def ended(self) -> bool:
        """The guest has nothing more to say by itself."""
        return self.hurt or (self.status is not None and (not self.has_output or self.total is not None))


class Ear:
    """Follows the agent's half of the console, and picks the answer to one request out of it."""

    def __init__(self, nonce: bytes, seq: int) -> None:
        self.reply = Reply()
        self.seq = seq
        self._rest = b""
        self._riddle = False
        self._bytes = 0
        self._other = re.compile(rb"(?:%b:(?!%d:)\d+:[ -~]*|%b)\Z" % (re.escape(nonce), seq, re.escape(HELLO)))
        self._line = re.compile(
            rb"%b:%d:(?:(b)|s:([0-7]{3})([01])|d:(\d{1,8}):([ -~]*)|e:(\d{1,8}):(\d{1,12}):(\w+)[ -~]*|(x))\Z"
            % (re.escape(nonce), seq)
        )

    def listen(self, words: bytes) -> None:
        """Take what `heard` made of the console's next bytes."""
        *lines, rest = (self._rest + words).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            if match := self._line.search(line):
                self._take(match)
            elif line and not self._other.search(line):
                self._riddle = True

    def asked_again(self) -> None:
        """What was not understood until now has been asked for again."""
        self._riddle = False

    @property
    def in_the_middle(self) -> bool:
        """A line has begun that has not ended, or an answer that has not; or one was so hurt that it may have been
        any, the last one too."""
        reply = self.reply
        return not reply.ended and bool(self._rest or self._riddle or reply.status is not None or reply.lines)

    def _take(self, match: re.Match[bytes]) -> None:
        begun, status, flag, number, text, lines, size, checksum, hurt = match.groups()
        reply = self.reply
        if begun is not None:
            reply.begun = True
        elif status is not None:
            reply.status, reply.has_output = int(status, 8), flag == b"1"
        elif number is not None:
            self._bytes += len(text)
            if self._bytes <= _MOST_BYTES:
                reply.lines[int(number)] = text
        elif lines is not None:
            reply.total = (int(lines), int(size), checksum.decode())
        elif hurt is not None:
            reply.hurt = True


def assembled(reply: Reply, checksum: Checksum) -> bytes | None:
    """The encoded output, if all of it was heard and its checksum is right."""
    if reply.total is None:
        return None
    count, size, expected = reply.total
    if count > _MOST_LINES or any(number not in reply.lines for number in range(1, count + 1)):
        return None
    text = b"".join(reply.lines[number] + b"\n" for number in range(1, count + 1))
    return text if len(text) == size and checksum_of(text, checksum) == expected else None


def wanting(reply: Reply) -> Ranges:
    """Which lines to ask for again when `assembled` gave nothing; never none."""
    last = reply.total[0] if reply.total is not None else max(reply.lines, default=0)
    if last > _MOST_LINES:
        return ((1, None),)
    missing = [number for number in range(1, last + 1) if number not in reply.lines]
    if missing:
        return _ranges(missing)
    if reply.total is None:
        return ((last + 1, None),)
    # All are there, and the sum is wrong. An encoder makes lines of one length, so those of another are suspect;
    # the last may be short.
    lengths = {number: len(reply.lines[number]) for number in range(1, last + 1)}
    usual = Counter(lengths.values()).most_common(1)[0][0] if lengths else 0
    odd = [number for number, length in lengths.items() if length != usual and number != last]
    return _ranges([*odd, last]) if odd or lengths.get(last, 0) > usual else ((1, None),)


def selection(ranges: Ranges, limit: int) -> bytes:
    """The awk(1) pattern, without blanks, for those lines or as many of them as `limit` bytes can name."""
    pattern = b""
    for first, last in ranges:
        term = (
            b"NR>=%d" % first
            if last is None
            else b"NR==%d" % first
            if first == last
            else b"(NR>=%d&&NR<=%d)" % (first, last)
        )
        longer = pattern + b"||" + term if pattern else term
        if len(longer) > limit:
            break
        pattern = longer
    return pattern or b"0"


def _ranges(numbers: Iterable[int]) -> Ranges:
    return tuple(_runs(numbers))


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last
