"""Runs a program in a pseudo-terminal of 40 lines and 120 columns, sends it keys and checks what it shows.

    terminal.py STEPS PROGRAM ARGUMENT…

STEPS is a JSON list of [kind, text]: `see` waits until the screen shows the text, `type` sends the text as keys, `end`
waits until the program ends and expects the text as its exit code. Prints the last screen. Fails if a step takes more
than 20 seconds.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

LINES, COLUMNS, PATIENCE = 40, 120, 20

steps, program = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    os.execv(program[0], program)

screen = [[" "] * COLUMNS for _ in range(LINES)]
at = [0, 0]
waiting, restored = b"", False


def shown():
    return "\n".join("".join(line).rstrip() for line in screen)


def draw(data):
    """Updates `screen`. Handles only the escape sequences that the program uses: positions and clearing."""
    global waiting, restored
    data = waiting + data
    waiting = b""
    while data:
        if data.startswith(b"\x1b"):
            found = re.match(rb"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[^\[]", data)
            if not found:
                waiting = data
                return
            if found[2] == b"H":
                parts = [int(part or 1) for part in (found[1] or b"1;1").split(b";")]
                at[:] = parts[0] - 1, parts[1] - 1
            elif found[2] == b"J":
                for line in screen:
                    line[:] = [" "] * COLUMNS
            elif found[2] == b"l" and found[1] == b"?1049":
                restored = True
            data = data[found.end() :]
            continue
        length = 1 if data[0] < 0x80 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
        if len(data) < length:
            waiting = data
            return
        if data[0] >= 0x20 and at[0] < LINES and at[1] < COLUMNS:
            screen[at[0]][at[1]] = data[:length].decode(errors="replace")
            at[1] += 1
        data = data[length:]


def read(deadline):
    """Reads once. Returns False when the program has ended."""
    left = deadline - time.monotonic()
    if left <= 0 or not select.select([terminal], [], [], left)[0]:
        sys.exit(f"timeout: the screen is\n{shown()}")
    try:
        data = os.read(terminal, 65536)
    except OSError:
        return False
    draw(data)
    return bool(data)


for kind, text in steps:
    deadline = time.monotonic() + PATIENCE
    if kind == "see":
        while text not in shown():
            if not read(deadline):
                sys.exit(f"the program ended before it showed {text!r}:\n{shown()}")
    elif kind == "type":
        os.write(terminal, text.encode())
    elif kind == "end":
        last = shown()
        while read(deadline):
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != int(text) or not restored:
            sys.exit(f"the program ended with {code}, and the terminal is restored: {restored}")
        print(last)
