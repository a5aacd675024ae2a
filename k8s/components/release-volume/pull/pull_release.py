"""Fetch release RELEASE from the MLflow server MLFLOW_TRACKING_URI into a folder, whole or not at all.

    python3 pull_release.py FOLDER      ->  FOLDER/7 and FOLDER/current, a file that says 7

Runs in the service's image, which has no MLflow: two routes of its REST interface are all that is needed. Variables
have MLflow's own names: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, for a server
that asks who is there; MLFLOW_TRACKING_SERVER_CERT_PATH, a file that may be absent, for one whose certificate an
authority of your own has signed.
"""

import base64
import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from service.errors import ReleaseDamaged, VitrineError
from service.files import digest
from service.recommender.release import MANIFEST, point, verify
from service.signing import read_trusted

MODEL, SEAL, ARTEFACT = "vitrine", "vitrine.manifest", "release"  # as training/promotion/registry.py writes them
TRIES = 5
HINTS = {
    401: "; it asks who is there: the Secret mlflow must hold its token",
    # MLflow answers 403 to a Host that it was not told of
    403: "; is the name in MLFLOW_TRACKING_URI among the server's --allowed-hosts, and may this token read?",
}


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
            return urllib.request.urlopen(urllib.request.Request(url, headers=_who()), timeout=60, context=_trust())
        except urllib.error.HTTPError as error:
            if error.code < 500:
                text = " ".join(error.read()[:300].decode(errors="replace").split())
                raise VitrineError(f"{url}: {error.code} {text}{HINTS.get(error.code, '')}") from error
            said = error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise VitrineError(
                    f"{url}: {error.reason}; the config map mlflow-ca must hold its authority as ca.crt"
                ) from error
            said = error
        except OSError as error:
            said = error
        time.sleep(2**turn)
    raise VitrineError(f"{url}: {said}; is MLFLOW_TRACKING_URI right, and does the network policy let it through?")


def _who() -> dict[str, str]:
    """The header by which MLflow knows its callers, where there is one to send."""
    asked = os.environ
    if token := asked.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if name := asked.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{name}:{asked.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _trust() -> ssl.SSLContext:
    own = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
    return ssl.create_default_context(cafile=own if own and Path(own).exists() else None)


if __name__ == "__main__":
    try:
        keys = os.environ.get("VITRINE_TRUSTED_KEYS")
        main(Path(sys.argv[1]), os.environ["RELEASE"], os.environ["MLFLOW_TRACKING_URI"], keys)
    except VitrineError as error:
        sys.exit(str(error))
