"""The programs `mlflow` and `python` of `tests.steps.preloaded`; what is no step is left to the real ones.

Arguments: the address of the server, the real program, and its arguments. Everything that this file imports is paid
for by each process.
"""

import json
import os
import signal
import socket
import sys


def main() -> int:
    """Ask for a fork and wait for its end; returns its exit status."""
    address, real, *words = sys.argv[1:]
    program = os.path.basename(real)  # noqa: PTH119 (pathlib takes a while to import)
    if program == "python" and not (words[:1] == ["-m"] and words[1].startswith(("steps.", "tests."))):
        os.execv(real, [real, *words])  # noqa: S606
    asked = {"words": [program, *words], "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    request = json.dumps(asked).encode()
    passed_on = {signal.SIGTERM, signal.SIGINT}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
        for number in passed_on:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        status = connection.recv(1)
    return status[0] if status else 1


if __name__ == "__main__":
    sys.exit(main())
