#!/usr/bin/env python3
"""Runs what documents show: walk.py BINARY DOCUMENT...

Every ```console block of a document is run, in order, in one bash in an empty directory, with
`quorate` on the path. A line `$ COMMAND` is a command (`> ` continues it); the lines below it are what
it must print, where `…` stands for anything in a line and a line `…` for any lines. A command must end
with 0 unless the next one is `echo $?`. What was started with `&` is ended at the end. Ports 7400 to
7499 of the document are others here, so that a cluster of yours is left alone.
"""
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 90


def blocks(text):
    """(line, [(command, [expected])]) of each console block."""
    found, lines, at = [], text.splitlines(), 0
    while at < len(lines):
        if lines[at].strip() == "```console":
            start, commands = at + 1, []
            at += 1
            while lines[at].strip() != "```":
                here = lines[at]
                if here.startswith("$ "):
                    commands.append((here[2:], []))
                elif here.startswith("> ") and commands and not commands[-1][1]:
                    commands[-1] = (commands[-1][0] + "\n" + here[2:], [])
                elif commands:
                    commands[-1][1].append(here)
                else:
                    sys.exit(f"line {at + 1}: output before any command")
                at += 1
            found.append((start, commands))
        at += 1
    return found


def agrees(expected, printed):
    """Whether what was printed is what is expected, line by line."""
    if not expected:
        return not printed
    if expected[0].strip() == "…":
        return any(agrees(expected[1:], printed[skip:]) for skip in range(len(printed) + 1))
    if not printed:
        return False
    wanted = ".*".join(re.escape(part) for part in expected[0].rstrip().split("…"))
    return re.fullmatch(wanted, printed[0].rstrip()) is not None and agrees(expected[1:], printed[1:])


def free_hundred():
    """The first of a hundred ports that are free."""
    while True:
        base = random.randrange(110, 300) * 100
        try:
            for port in range(base, base + 100):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue


class Shell:
    """A bash that runs one command at a time and says how it ended."""

    def __init__(self, directory, environment):
        self.end = f"--{os.getpid()}-{random.random()}--"
        self.bash = subprocess.Popen(
            ["bash", "--norc"], cwd=directory, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def run(self, command, code):
        """What the command printed, and its exit code; it sees `code` as that of the last one."""
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(
            "\n".join([f"$ {command}", f"-- did not end within {PATIENCE_S} s; printed"] + printed)))
        printed = []
        line = f"(exit {code})\n{command}\nstatus=$?; printf '\\n%s %s\\n' '{self.end}' $status\n"
        self.bash.stdin.write(line)
        self.bash.stdin.flush()
        printed = []
        signal.alarm(PATIENCE_S)
        for line in self.bash.stdout:
            if line.startswith(self.end):
                signal.alarm(0)
                # The empty line is of the end itself, unless the output had no newline.
                if printed and printed[-1] == "":
                    printed.pop()
                return printed, int(line.split()[-1])
            printed.append(line.rstrip("\n"))
        sys.exit(f"the shell ended: {printed}")

    def stop(self):
        """Ends bash and all that it has started, and waits until nothing of it is left."""
        self.bash.stdin.close()
        for word in (signal.SIGTERM, signal.SIGKILL):
            for process in self.alive():
                os.kill(process, word)
            for _ in range(300):
                self.bash.poll()
                if not self.alive():
                    return
                time.sleep(0.1)
        sys.exit(f"these do not end: {self.alive()}")

    def alive(self):
        """The processes of bash's group. One that has ended and that nobody has waited for is not."""
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
                    state, _, group = file.read().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.bash.pid and state not in "ZX":
                found.append(int(process))
        return found


def walk(document, binary):
    text = open(document, encoding="utf-8").read()
    base = free_hundred()
    moved = re.sub(r"\b74(\d\d)\b", lambda port: str(base + int(port.group(1))), text)
    found = blocks(moved)
    commands = sum(len(block) for _, block in found)
    if commands == 0:
        sys.exit(f"{document}: no command to run")
    with tempfile.TemporaryDirectory() as directory:
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("QUORATE_")}
        environment["PATH"] = f"{os.path.dirname(os.path.abspath(binary))}:{environment['PATH']}"
        environment["NO_COLOR"] = "1"
        shell = Shell(directory, environment)
        try:
            for line, block in found:
                told = [command.strip() == "echo $?" for command, _ in block] + [False]
                code = 0
                for at, (command, expected) in enumerate(block):
                    printed, code = shell.run(command, code)
                    if not agrees(expected, printed) or (code != 0 and not told[at + 1]):
                        sys.exit("\n".join([f"{document}:{line}: $ {command}", "-- expected"]
                                           + expected + [f"-- printed, exit code {code}"] + printed))
        finally:
            shell.stop()
    print(f"{document}: {commands} commands do what it shows")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for each in sys.argv[2:]:
        walk(each, sys.argv[1])
