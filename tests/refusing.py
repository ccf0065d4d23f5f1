"""System calls that are refused to this process from now on: by seccomp, without privileges."""

import ctypes
import struct

MMAP, MPROTECT, OPENAT = 9, 10, 257  # numbers on x86-64

LOAD, IF_EQUAL, IF_ANY, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, THIRD_ARGUMENT = 0, 32  # where the filter finds them


def refuse(call, bits, error):
    """Let the system call fail with `error` if its third argument has one of `bits`."""
    lines = [
        (LOAD, 0, 0, NUMBER),
        (IF_EQUAL, 0, 3, call),
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (IF_ANY, 0, 1, bits),
        (RETURN, 0, 0, ERROR | error),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with a filter.
    for arguments in ((38, 1, 0, 0, 0), (22, 2, program, 0, 0)):
        if prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl{arguments[0]}")
