"""`python -m service`: the service in this one process, which ends when it cannot serve.

`bentoml serve` starts a supervisor that keeps a worker going. A pod has Kubernetes for that: a supervisor would hold a
second copy of every library, take two seconds of each start, and try a release that cannot be served for ever, where a
pod has to fail.
"""

import argparse
import signal
import sys
import warnings
from typing import NoReturn

import uvicorn

from service.errors import VitrineError


def main() -> NoReturn:
    """Serve until SIGTERM or SIGINT; exit code 1 where the release, or the address, cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve VITRINE_RELEASE over HTTP and gRPC")
    parser.add_argument("--host", default="127.0.0.1", help="address of HTTP")
    parser.add_argument("--port", type=int, default=3000, help="port of HTTP")
    asked = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it again when it has ended
        signal.signal(number, lambda *_: sys.exit(0))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about each other
    try:
        from service import app

        app.vitrine.start(asked.host)
    except VitrineError as error:
        sys.exit(f"this cannot be served: {error}")
    server = uvicorn.Server(
        uvicorn.Config(
            app.asgi(),
            host=asked.host,
            port=asked.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=app.vitrine.settings.keep_alive,
            ssl_certfile=app.vitrine.settings.tls_certificate,
            ssl_keyfile=app.vitrine.settings.tls_key,
        ),
    )
    app.vitrine.say_where(asked.host, asked.port)
    server.run()
    sys.exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
