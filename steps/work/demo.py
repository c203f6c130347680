"""Work of `demo`: the web page of `cxr.demo` with a model from the registry behind it."""

import errno
import socket
import threading
import webbrowser

import uvicorn

from cxr.demo.app import application
from cxr.errors import CxrError
from steps.registry.model_files import requested_service
from steps.runtime.context import Context

HOST, PORT = "127.0.0.1", 7860


def run(context: Context) -> None:
    """Serve the page until the process is stopped."""
    port, open_page = context.flags.get("port", str(PORT)), context.boolean("open", True)
    if not port.isdigit() or not 0 <= int(port) < 65536:
        raise CxrError(f"port: expected a number from 0 (any free port) to 65535, got {port!r}")
    uri, service = requested_service(context)
    listener = _listen(int(port))
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(application(service, uri.split("/")[1]), log_level="warning"))
    context.log.info("%s answers at %s until Ctrl-C", uri, address)
    if open_page:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    with listener:
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # the usual way to close the page, not a failure
            context.log.info("closed")


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # now, so that the address answers from the moment it is announced
    except OSError as error:
        listener.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise CxrError(f"port {port} {reason}; give another one: -P port=0 takes any free port") from None
    return listener
