"""Tables and progress: plain for files and pipes, drawn by rich for people."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from xsmmconv import _terminal

LINES = [("name of it", "n"), ("a", "1"), ("b [c]", "100")]
PLAIN = "name of it    n\n----------  ---\na             1\nb [c]       100"


def shown_on_a_terminal(code, columns):
    """What the lines of Python print on a terminal of that width, without its control sequences."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(reader, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(reader)
    assert process.wait() == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def drawn(columns, before=""):
    code = f"from xsmmconv import _terminal\n{before}\nprint(_terminal.table({LINES!r}, {{0}}))"
    return shown_on_a_terminal(code, columns)


def test_table_in_a_file_is_plain_text():
    assert _terminal.table(LINES, {0}) == PLAIN
    assert _terminal.table(LINES[1:], {0}, ruled=False) == "a        1\nb [c]  100"


def test_table_on_a_terminal_is_drawn():
    header, rule, first, second = (line.strip() for line in drawn(80).splitlines())
    assert header.split() == ["name", "of", "it", "n"]
    assert set(rule) == {"─"}
    assert first.split() == ["a", "1"]
    assert second.split() == ["b", "[c]", "100"]


def test_header_is_broken_on_a_narrow_terminal_and_no_number_is_cut():
    lines = drawn(8).splitlines()
    assert [line.split() for line in lines[:3]] == [["name"], ["of"], ["it", "n"]]
    assert lines[-1].split() == ["b", "[c]", "100"]


def test_terminal_without_rich_gets_plain_text():
    assert drawn(80, "import sys; sys.modules['rich'] = None") == f"{PLAIN}\n"


def test_progress_on_a_terminal_is_a_bar():
    code = (
        "from xsmmconv import _terminal\n"
        "with _terminal.progress(2) as step:\n"
        "    step('first [bold]'); step('second')\n"
        "print('done')"
    )
    shown = shown_on_a_terminal(code, 80)
    assert re.search(r"0/2 .*first \[bold\]", shown)
    assert re.search(r"1/2 .*second", shown)
    assert shown.endswith("done\n")


def test_progress_in_a_file_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 5.0, 16.0, 17.0])
    monkeypatch.setattr(_terminal.time, "monotonic", lambda: next(clock))
    with _terminal.progress(4) as step:
        for name in ("one", "two", "three", "four"):
            step(name)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "1 of 4: one\n3 of 4, about 0.3 min left: three\n"
