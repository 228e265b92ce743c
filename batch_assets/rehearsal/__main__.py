"""`python -m batch_assets.rehearsal`: AWS on 127.0.0.1 until SIGTERM or Ctrl-C.

The first line on stdout is the endpoint.
"""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_text
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets.standard_streams import set_up_streams


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m batch_assets.rehearsal", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--scenario", default="calm", help="calm, stormy, or a YAML file")
    parser.add_argument("--speed", type=float, default=1.0, help="virtual seconds in a real one")
    parser.add_argument("--books", type=Path, help="write the books here, as JSON, at the end")
    options = parser.parse_args(arguments)

    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    try:
        server = RehearsalServer(scenario=Scenario.load(options.scenario), speed=options.speed)
        endpoint = server.start(options.port)
    except (ConfigurationError, OSError) as error:
        sys.stderr.write(f"{plain_text(str(error))}\n")
        return 2
    sys.stdout.write(f"{endpoint}\n")
    sys.stdout.flush()
    ended.wait()
    server.stop()
    if options.books:
        options.books.write_text(json.dumps(server.books.as_dict(), indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    set_up_streams()
    sys.exit(main())
