"""What the shell of a host does before it runs our command: ``.bashrc``, ``ForceCommand``.

sshd lets the user's shell run every command, and that may print, read the input or end first. So a
command is framed: both streams have a line with a random mark before and behind what it prints, and
its input begins with lines that a shell may read in its place.
"""

from __future__ import annotations

import secrets
import shlex

from flambe._process import quote_tail
from flambe.errors import ShellError
from flambe.logging import redact
from flambe.remote.ssh_master import SshMaster

# Where a stream is: before the frame, in it, or behind it.
BEFORE, INSIDE, BEHIND = range(3)
# Seconds until a command has begun; a dead link is noticed before.
START = 90.0
# How many lines of input a shell may read and not be in the way; where a command has no input of
# its own, they are sent again after so many seconds.
LINES, AGAIN = 16, 1.0
# Of what it prints, so many characters are kept.
KEPT = 4096

# Where the shell has read all of it, nothing is run: the client has hung up, or sends it again.
_BEGUN = """count=0
while IFS= read -r line && [ "$line" != "$1." ]; do count=$((count + 1)); done
[ "$line" = "$1." ] || { echo "$1 eaten"; exit 1; }
echo "$1 begin $count"; echo "$1 begin $count" >&2
"""

# Runs $2 without an input. Its own input is a lifeline: when that ends, because we hang up or are
# gone, the whole process group is killed.
_GUARDED = f"""{_BEGUN}exec 3<&0
sh -c "$2" </dev/null 3<&- & child=$!
{{ while read -r line <&3; do :; done; kill -s KILL 0; }} >/dev/null 2>&1 & guard=$!
exec 3<&-
wait $child; code=$?
kill $guard 2>/dev/null
echo "$1 end"; echo "$1 end" >&2
exit $code"""

# Runs $2 with what is behind the first lines of the input.
_FED = f"""{_BEGUN}sh -c "$2"; code=$?
echo "$1 end"; echo "$1 end" >&2
exit $code"""


# Runs $1 in a login shell, and sees whether it was run: a profile may exit, or become another one.
_LOGIN = """mark=$(mktemp) && printf x > "$mark"
bash -lc "$1" bash "$mark"; code=$?
if [ $code -ne 127 ] && [ -s "$mark" ]; then
rm -f "$mark"
echo "the login shell ended before it ran this: see .bash_profile, .bash_login and .profile" >&2
exit 96
fi
rm -f "$mark"
exit $code"""


def login(script: str) -> list[str]:
    """Return the command line that has a script run by bash as at a login.

    One whose profile ends before fails: it would seem to have done what it did not.
    """
    return ["sh", "-c", _LOGIN, "sh", f': >| "$1"; shift\n{script}']


class Frame:
    """The frame of one command, and what was seen around it.

    Attributes
    ----------
    noise
        What came before it, by the name of the stream.
    begun
        Whether the command was run.
    reads
        Whether the shell has read of the input.
    """

    def __init__(self) -> None:
        self.mark = f"flambe-{secrets.token_hex(8)}"
        self.noise: dict[str, str] = {}
        self.begun = False
        self.reads = False

    def command(self, script: str, *, has_input: bool) -> str:
        """Return what sshd is asked for, to have a script run by ``sh``."""
        return shlex.join(["sh", "-c", _FED if has_input else _GUARDED, "sh", self.mark, script])

    @property
    def preamble(self) -> bytes:
        """What its input begins with."""
        return f"{self.mark}\n".encode() * LINES + f"{self.mark}.\n".encode()

    def read(self, stream: str, position: int, line: str) -> tuple[int, str]:
        """Return where a stream is behind a line, and what of the line the command has printed."""
        if position == BEFORE:
            head, begin, rest = line.partition(f"{self.mark} begin")
            if begin:
                self.begun = True
                self.reads = self.reads or (rest.strip().isdigit() and int(rest) < LINES)
            elif f"{self.mark} eaten" in line:
                head, self.reads = "", True
            if head:
                self.noise[stream] = (self.noise.get(stream, "") + head)[-KEPT:]
            return (INSIDE if begin else BEFORE), ""
        if position == INSIDE:
            head, end, _ = line.partition(f"{self.mark} end")
            return (BEHIND if end else INSIDE), head
        return BEHIND, ""

    def record(self, master: SshMaster) -> None:
        """Record what disturbs rsync and SFTP, whose streams have no frame."""
        if self.begun:
            master.noise = self.noise.get("stdout", "")
            master.reads_input = master.reads_input or self.reads


def not_run(master: SshMaster, frame: Frame, output: str) -> ShellError:
    """Return the error of a shell that has ended before it ran our command."""
    did = "read the input of our command" if frame.reads else "printed or exited"
    if not frame.reads:
        did += " before our command ran"
    return ShellError(master.name, f"its shell {did} {_FILES}{_quoted(output)}{_by_hand(master)}")


def waits(master: SshMaster, frame: Frame) -> ShellError:
    """Return the error of a shell that does not come to run our command."""
    output = frame.noise.get("stdout", "") + frame.noise.get("stderr", "")
    text = f"its shell does not run our command: something waits, for input maybe {_FILES}"
    return ShellError(master.name, f"{text}{_quoted(output)}{_by_hand(master)}")


def refuse(master: SshMaster) -> None:
    """Refuse a copy where the shell of the host would disturb it: rsync and SFTP have no frame.

    Raises
    ------
    ShellError
        If it was seen to print or to read before a command.
    """
    if master.noise or master.reads_input:
        raise unclean(master)


def unclean(master: SshMaster) -> ShellError:
    """Return the error of a shell that is in the way of rsync and SFTP."""
    did = "reads the input of a command" if master.reads_input else "prints before a command"
    if master.noise or not master.reads_input:
        did = "prints before a command runs"
    return ShellError(
        master.name,
        f"its shell {did} {_FILES}, so that rsync and SFTP do not work"
        f"{_quoted(master.noise)}{_by_hand(master)}\n"
        "  = let it do nothing where it is not interactive; as the first line of ~/.bashrc:\n"
        "    case $- in *i*) ;; *) return ;; esac",
    )


_FILES = "(.bashrc, ForceCommand)"


def _quoted(output: str) -> str:
    return quote_tail(redact.hide(output), 4)


def _by_hand(master: SshMaster) -> str:
    return f"\n  check:   {master.by_hand('true')}   must print nothing, and return 0"
