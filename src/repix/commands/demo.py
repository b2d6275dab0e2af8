"""Serve a page to try exported models: pick, upload or draw a source, see what one or two make of it.

It shows the ONNX files of exports/, each checked against its record, with scores and lineage,
at http://127.0.0.1:7860 until Ctrl+C. Nothing that is sent is kept, and nothing is fetched
from elsewhere. An upload has at most 16 MB and 50 million pixels. Pages of other origins are refused.

Examples:
  repix demo
  repix demo --port 8000
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from repix.errors import UserError, printable
from repix.paths import EXPORTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; others than this machine's own "
                        "loopback let your network in, without a password (default: %(default)s)")  # fmt: skip
    parser.add_argument("--name", action="append", default=[], help="a further name that browsers reach it by, such "
                        "as a proxy's; again for more")  # fmt: skip
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")


def needs_project(arguments: argparse.Namespace) -> bool:
    """Whether it works in a project alone: exports do without one."""
    return not EXPORTS.is_dir()


def main(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from repix.demo import catalogue

    entries, left_out = catalogue.find(Path())
    # Flask, MLflow and onnxruntime take seconds: not before there is something to show.
    from repix.demo import app
    from repix.demo.server import serve

    local = arguments.host in app.LOOPBACK
    own = () if local else (arguments.host, socket.gethostname(), socket.getfqdn())
    application = app.create(entries, left_out, (*app.LOOPBACK, *own, *arguments.name), addresses=not local)
    try:
        server = serve(application, arguments.host, arguments.port)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"{arguments.host} port {arguments.port}: {said}; choose another with --port") from None
    name = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    for line in left_out:
        print(f"repix demo: not shown: {printable(line)}", file=sys.stderr)
    count = f"{len(entries)} model{'s' if len(entries) > 1 else ''}"
    print(f"{count} at http://{name}:{server.port} (Ctrl+C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0
