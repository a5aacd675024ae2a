"""May this release take over? It answers what was held out beside what is in production, and every check says so."""

import json
import math
import tomllib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from service.errors import PromotionRefused
from service.files import digest, write_text
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import MANIFEST, Release
from training.data.catalogue import Catalogue
from training.evaluation.held_out_questions import draw_questions, last_cutoff
from training.evaluation.pages import write_page
from training.evaluation.users_by_key import for_catalogue
from training.progress import say
from training.promotion.gate_checks import (
    Check,
    Thresholds,
    digest_of,
    of_answers,
    of_likeness,
    of_looks,
    of_photo_and_user,
    of_pictures,
    of_ranking,
)
from training.promotion.gate_cost import of_cost

DEFAULTS = Path(__file__).with_name("gates.toml")
PAGE = Path(__file__).with_name("gate.html.j2")
FRESH = timedelta(hours=24)
ASKS_LESS_ABOVE = ("most_", "largest_", "fewest_shoppers")  # thresholds that let more through where they are larger


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was checked. manifest, against_manifest: sha256 of both manifests; thresholds, catalogue: digests
    of the bounds and of the data that was asked about."""

    release: int
    against: int | None
    manifest: str
    against_manifest: str | None
    thresholds: str
    catalogue: str
    created: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """What keeps the release back."""
        return [check for check in self.checks if check.passed is False]

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write N.json and N.html; returns both."""
        folder.mkdir(parents=True, exist_ok=True)
        page, facts = folder / f"{self.release}.html", folder / f"{self.release}.json"
        write_page(PAGE, page, report=self, bars={check.name: _bar(check) for check in self.checks})
        write_text(facts, json.dumps({**asdict(self), "passed": self.passed}, indent=1) + "\n")
        return facts, page

    @classmethod
    def read(cls, path: Path) -> "Report | None":
        """What `save` wrote; None where there is nothing, or what another version of this code wrote."""
        try:
            values = json.loads(path.read_text())
            del values["passed"]
            return cls(**{**values, "checks": [Check(**check) for check in values["checks"]]})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_fresh(self, release: Path, production: Path | None, thresholds: Thresholds) -> bool:
        """Whether it was made of these very releases, with these thresholds, of late."""
        against = None if production is None else digest(production / MANIFEST)
        made_of = (self.manifest, self.against_manifest, self.thresholds)
        age = datetime.now(UTC) - datetime.fromisoformat(self.created)
        return made_of == (digest(release / MANIFEST), against, digest_of(thresholds)) and age < FRESH


def read_thresholds(path: Path | None) -> Thresholds:
    """The defaults, and what a file says otherwise. Raises PromotionRefused for what it must not say."""
    found: Thresholds = tomllib.loads(DEFAULTS.read_text())
    if path is None:
        return found
    try:
        said = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PromotionRefused(f"--thresholds {path} cannot be read: {error}") from error
    for section, values in said.items():
        for name, value in values.items() if isinstance(values, dict) else [(section, values)]:
            if name not in found.get(section, {}):
                known = ", ".join(f"{part}.{each}" for part, names in found.items() for each in names)
                raise PromotionRefused(
                    f"--thresholds {path}: there is no threshold {section}.{name}; there are {known}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise PromotionRefused(
                    f"--thresholds {path}: {section}.{name} must be a number from 0; it is {value!r}"
                )
            found[section][name] = float(value)
    return found


def loosened(thresholds: Thresholds) -> list[str]:
    """Those that ask less than the defaults do, with both values."""
    defaults = read_thresholds(None)
    return [
        f"{section}.{name} {value:g} (default {defaults[section][name]:g})"
        for section, values in thresholds.items()
        for name, value in values.items()
        if (value > defaults[section][name] if name.startswith(ASKS_LESS_ABOVE) else value < defaults[section][name])
    ]


def run(
    candidate: Recommender, production: Path | None, catalogue: Catalogue, thresholds: Thresholds, *, user_key: str
) -> Report:
    """Check a release beside what is in production; None for a first one. candidate: proven in float32.

    Raises ReleaseError where a release cannot be opened or does not give its golden answers."""
    recommenders = [candidate]
    if production is not None:
        recommenders.append(Recommender(Release.open(production), user_key=user_key))
        prove(recommenders[1])
    for recommender in recommenders:
        prove_precisions(recommender)
    recommenders = [for_catalogue(recommender, catalogue) for recommender in recommenders]
    folders = [recommender.release.path for recommender in recommenders]
    questions = draw_questions(catalogue, last_cutoff(recommenders), vectors=of_looks(recommenders[0], catalogue))
    marks = [questions.ask(recommender) for recommender in recommenders]
    mine, theirs = marks[0], marks[1] if production is not None else None
    checks = [
        Check("golden answers", True, None, None, "in every precision, as recorded"),
        *of_ranking(mine, theirs, questions, thresholds["ranking"]),
        *of_pictures(recommenders[0], mine, theirs, questions, thresholds["pictures"]),
        *of_photo_and_user(mine, theirs, int(thresholds["ranking"]["fewest_shoppers"])),
        *of_likeness(mine, theirs, thresholds["likeness"]),
        *of_cost(recommenders, folders, questions, thresholds["cost"]),
        *of_answers(recommenders, questions),
    ]
    manifests = [digest(folder / MANIFEST) for folder in folders]
    return Report(
        release=recommenders[0].release.manifest.release,
        against=None if production is None else recommenders[1].release.manifest.release,
        manifest=manifests[0],
        against_manifest=None if production is None else manifests[1],
        thresholds=digest_of(thresholds),
        catalogue=catalogue.fingerprint(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checks=checks,
    )


def prove_precisions(recommender: Recommender) -> None:
    """Send its golden cases through every other precision that it may be served in. Raises ReleaseMismatch."""
    release = recommender.release
    say(f"gate: release {release.number} must give its golden answers")
    for precision in list(release.encoders)[1:]:
        prove(Recommender(release, precision=precision, user_key=recommender.users.key))


def _bar(check: Check) -> dict[str, float] | None:
    """The interval of a difference as per cent of a line on which production is the middle, and 50 % less an end."""
    if check.production is None or not check.interval or not check.production:
        return None
    ends = (*check.interval, (check.value or 0.0) - check.production)
    low, high, middle = (float(np.clip(50 + 100 * end / check.production, 0, 100)) for end in ends)
    return {"low": low, "width": max(0.6, high - low), "at": middle}
