"""The few lines of POSIX sh that answer on a guest's console. Pure functions from the release's data to text.

They come in two parts. The *loader* is one line short enough for any terminal and written so that sh, csh and their
kin all take it from a prompt; it turns echo off, and reads the agent's own text in pieces. It is a job of the login
shell (not `exec`: that would put it into the process group of login(1), which an interrupt kills with it).
`frames.py` has the grammar that the agent speaks.
"""

from __future__ import annotations

from dfbuild.releases.schema import Shell
from dfbuild.shell.frames import HELLO, upper

READY = b"R"
TAKEN = b"K"
QUIT = b"Q\n"

LOADER = (
    "sh -c 'stty sane -echo cs8 -parenb -istrip;"
    rf'printf "{upper(READY)}\212";b=;'
    "while IFS= read -r l;do case $l in .)break;;esac;"
    rf'b=$b$l;printf "{upper(TAKEN)}\212";done;eval "$b"' + "';exit\n"
)

# `read` takes the terminal's lines apart; nothing that was typed is ever evaluated but `c`, by a shell of its own.
# The command's output goes to a file of its own, which what it leaves in the background may hold for ever.
# Interrupts reach the command and nothing else; what it printed before one is nobody's any more, and can be much.
_AGENT = r"""
PATH=@PATH@;export PATH;
D=@DIRECTORY@/dfb-@NONCE@;(umask 077;mkdir $D)||exit 1;
trap "" INT QUIT;trap "rm -rf $D;exit" HUP TERM;
F(){ printf "@HEAD@$1"; };
S(){ F "$n\272\363\272\26$(($1/64))\26$(($1/8%8))\26$(($1%8))\26$2\212"; };
T(){ LC_ALL=C tr " -~\n" "\240-\376\212"; };
G(){ { awk -v p="@NONCE@:$q:" '{t+=length($0)+1}
 '"$1"'{print p "d:" NR ":" $0}
 END{printf "%se:%d:%d:",p,NR,t}' $D/e;@CHECKSUM@ <$D/e; }|T; };
A(){ if [ -s $D/e ];then S $s 1;G 1;else S $s 0;fi; };
Z(){ :>$D/c;:>$D/i; };
R(){ F "$n\272\342\212";
x=;trap "x=1" INT QUIT;
(trap - INT QUIT;exec sh $D/c) <$D/i >$D/o$q 2>&1;
s=$?;trap "" INT QUIT;Z;
if [ -z "$x" -a -s $D/o$q ];then @ENCODE@ <$D/o$q >$D/e;else :>$D/e;fi;
A;rm -f $D/o*; };
L=;s=0;Z;
while IFS=" " read -r v q n k p;do
if [ -z "$v" ];then printf "@HELLO@\212";
elif [ "$v" = Q ];then break;
elif [ ${#p} != "$k" ];then F "$n\272\370\212";
else case $v in
g) G "$p";;
p) Z;S 0 0;;
r) if [ "$q" = "$L" ];then A;else L=$q;printf "$p" >>$D/c;R;fi;;
c|i) if [ "$q" != "$L" ];then L=$q;printf "$p" >>$D/$v;s=$?;fi;S $s 0;;
esac;fi;done;
rm -rf $D
"""


def agent(shell: Shell, nonce: str) -> bytes:
    """The agent's text, as one line."""
    text = _AGENT.strip().replace("\n", " ")
    for name, value in {
        "PATH": shell.path,
        "DIRECTORY": shell.serial.directory,
        "NONCE": nonce,
        "HEAD": upper(f"{nonce}:".encode()),
        "HELLO": upper(HELLO),
        "CHECKSUM": shell.checksum_command,
        "ENCODE": shell.serial.encode,
    }.items():
        text = text.replace(f"@{name}@", value)
    return text.encode()


def loader_pieces(text: bytes, limit: int) -> list[bytes]:
    """`text` as the lines that the loader takes, and the one that ends them."""
    return [*(text[at : at + limit] + b"\n" for at in range(0, len(text), limit)), b".\n"]
