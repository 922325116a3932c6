"""A list of cases against one broker: each has a deadline, a failing one does not end the others.

usage of a file of cases: FILE.py BROKERS SUBJECT [CASE..]

SUBJECT is `kafka` (the control) or `falaj`; a case looks at it only where the two differ on purpose.
Prints a line a case; exits 1 where one failed. Topics and groups have names of their own in every run.
"""

import os
import sys
import threading
import time
import traceback
import uuid

# Longest wait for one case; reached only when something is broken.
PATIENCE = 60

BROKERS = sys.argv[1]
SUBJECT = sys.argv[2]
RUN = uuid.uuid4().hex[:8]

_cases = []


def case(function):
    """Marks a function as a case; its name is what is printed."""
    _cases.append(function)
    return function


def named(name):
    """A name that no other run uses."""
    return f"{name}-{RUN}"


def until(what, happens, seconds=30):
    """Calls `happens` until it gives something true, and gives that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = happens()
        if value:
            return value
    raise AssertionError(f"not within {seconds} s: {what}")


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def run():
    chosen = sys.argv[3:]
    failed = []
    for function in _cases:
        name = function.__name__
        if chosen and name not in chosen:
            continue
        outcome = []

        def body(function=function, outcome=outcome):
            try:
                outcome.append(("ok", function() or ""))
            except BaseException:
                outcome.append(("FAILED", traceback.format_exc()))

        started = time.monotonic()
        # A client that hangs is left behind in its thread: the process ends without it.
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        result, said = outcome[0] if outcome else ("FAILED", f"no end within {PATIENCE} s")
        if result != "ok":
            failed.append(name)
        print(f"{result:6} {name} ({time.monotonic() - started:.1f} s) {said}", flush=True)
    if failed:
        print(f"{len(failed)} failed on {SUBJECT}: {', '.join(failed)}")
    sys.stdout.flush()
    # Not sys.exit: threads of hanging clients would keep the process.
    os._exit(1 if failed else 0)
