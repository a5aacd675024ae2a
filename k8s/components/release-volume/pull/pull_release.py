"""Fetch release RELEASE from the MLflow server MLFLOW_TRACKING_URI into a folder, whole or not at all.

    python3 pull_release.py FOLDER      ->  FOLDER/7 and FOLDER/current, a file that says 7

Runs in the service's image, which has no MLflow: two routes of its REST interface are all that is needed.
"""

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from service.errors import ReleaseDamaged, VitrineError
from service.release import MANIFEST, digest, point, verify
from service.signing import read_trusted

MODEL, SEAL, ARTEFACT = "vitrine", "vitrine.manifest", "release"  # as training/registry.py writes them
TRIES = 5


def main(folder: Path, number: str, server: str, trusted_keys: str | None) -> None:
    """Raises VitrineError, and then leaves nothing but what was there."""
    trusted = read_trusted(Path(trusted_keys) if trusted_keys else None)
    if (folder / number).exists():  # the container was started again
        verify(folder / number, trusted=trusted)
    else:
        version = _json(server, "/api/2.0/mlflow/model-versions/get", name=MODEL, version=number)["model_version"]
        sealed = {tag["key"]: tag["value"] for tag in version.get("tags", [])}.get(SEAL)
        if sealed is None:
            raise VitrineError(f"{server} holds no whole release {number}; vitrine history lists those that were live")
        aside = folder / f".pulling-{number}"
        shutil.rmtree(aside, ignore_errors=True)
        _fetch(server, version["run_id"], ARTEFACT, aside)
        if digest(aside / MANIFEST) != sealed:
            raise ReleaseDamaged(f"what {server} gave for release {number} is not what was sealed there")
        verify(aside, trusted=trusted)
        aside.rename(folder / number)
    point(folder / "current", f"{number}\n")
    print(f"release {number} is here and whole", flush=True)


def _fetch(server: str, run: str, path: str, into: Path) -> None:
    into.mkdir(parents=True)
    for file in _json(server, "/api/2.0/mlflow/artifacts/list", run_id=run, path=path).get("files", []):
        name = Path(file["path"]).name
        if file["is_dir"]:
            _fetch(server, run, file["path"], into / name)
        else:
            came = _open(server, "/get-artifact", run_uuid=run, path=file["path"])
            with came, (into / name).open("wb") as to:
                shutil.copyfileobj(came, to, 1 << 20)


def _json(server: str, route: str, **asked: str) -> dict[str, Any]:
    with _open(server, route, **asked) as came:
        read: dict[str, Any] = json.load(came)
        return read


def _open(server: str, route: str, **asked: str) -> Any:
    url = f"{server.rstrip('/')}{route}?{urllib.parse.urlencode(asked)}"
    for turn in range(TRIES):
        try:
            return urllib.request.urlopen(url, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise VitrineError(f"{url}: {error.code} {error.read()[:300].decode(errors='replace')}") from error
            said = error
        except OSError as error:
            said = error
        time.sleep(2**turn)
    raise VitrineError(f"{url}: {said}; is MLFLOW_TRACKING_URI right, and does the network policy let it through?")


if __name__ == "__main__":
    try:
        keys = os.environ.get("VITRINE_TRUSTED_KEYS")
        main(Path(sys.argv[1]), os.environ["RELEASE"], os.environ["MLFLOW_TRACKING_URI"], keys)
    except VitrineError as error:
        sys.exit(str(error))
