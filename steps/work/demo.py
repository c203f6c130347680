"""The work of `demo`: a model from the registry behind the page of `cxr.demo`."""

import errno
import socket
import threading
import webbrowser

import uvicorn

from cxr.demo.app import application
from cxr.errors import CxrError
from steps.registry.model_files import asked_for
from steps.runtime.context import Context

HOST, PORT = "127.0.0.1", 7860


def show(context: Context) -> None:
    """Serve the page until the process is told to stop."""
    wish, opens = context.flags.get("port", str(PORT)), context.yes("open", True)
    if not wish.isdigit() or not 0 <= int(wish) < 65536:
        raise CxrError(f"port={wish}; allowed: a number from 0 (any free one) to 65535")
    uri, service = asked_for(context)
    listening = _listening(int(wish))
    address = f"http://{HOST}:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(application(service, uri.split("/")[1]), log_level="warning"))
    context.log.info("%s answers at %s until Ctrl-C", uri, address)
    if opens:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    with listening:
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # how a page is closed, and no failure
            context.log.info("closed")


def _listening(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise CxrError(f"port {port} {why}; give another: -P port=0 takes any free one") from None
    return made
