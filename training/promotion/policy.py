"""What a release must pass before an alias names it: the gate, a shadow's verdict, what was agreed to."""

from dataclasses import dataclass
from pathlib import Path

from service.errors import PromotionRefused, RegistryError, ReleaseError, VitrineError
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.signing import read_trusted
from training.data.catalogue_reader import read
from training.progress import say
from training.promotion import alias_moves, gate
from training.promotion.alias_moves import Move
from training.promotion.followers import Followers
from training.promotion.overlays import Image
from training.promotion.registry import PRODUCTION, Registry
from training.promotion.shadow_verdict import read_verdict


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What the gate is asked. catalogue: what was held out; None takes a fresh result alone; thresholds: a TOML file;
    user_key: of the hashes of user ids; trusted_keys: of which one must have signed a release, or None."""

    releases: Path
    catalogue: Path | None = None
    thresholds: Path | None = None
    user_key: str = ""
    trusted_keys: Path | None = None


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """A promotion that somebody asks for.

    forced: although the gate refuses it;
    proposed: for others to agree to, no alias moves;
    agreed: it was proposed, and the gate's answer of then counts;
    shadow_report: what `vitrine shadow-report` wrote."""

    number: int
    to: str
    reason: str
    who: str | None = None
    forced: bool = False
    proposed: bool = False
    agreed: bool = False
    shadow_report: Path | None = None
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """A report of the gate, its files, and which thresholds asked less than the defaults do."""

    report: gate.Report
    files: tuple[Path, ...]
    loosened: list[str]


class GateRefused(PromotionRefused):
    """The gate, or a shadow, keeps the release back."""

    def __init__(self, message: str, judged: GateResult) -> None:
        super().__init__(message)
        self.judged = judged


def promote(registry: Registry, wish: PromotionRequest, question: GateOptions, followers: Followers) -> Move | None:
    """Have an alias name a release, and its followers follow; None where it was proposed alone.

    Everything that can be said against it is said before anything moves. Raises PromotionRefused, RegistryError,
    other VitrineError."""
    alias_moves.require_sense(wish.to, wish.reason)
    _require_consistent(wish, followers)
    if wish.image is not None:
        registry.note_image(wish.number, wish.image)
    followers.require_writable(registry, wish.number, wish.to)
    if wish.agreed:
        return _move_as_agreed(registry, wish, followers)
    verdict = None if wish.shadow_report is None else read_verdict(wish.shadow_report, wish.number)
    judged = judge(registry, wish.number, question, again=False)
    refused = [check.name for check in judged.report.failed]
    files = judged.files
    if verdict is not None and wish.shadow_report is not None:
        refused += verdict.failed
        files = (*files, wish.shadow_report)
    if refused and not wish.forced:
        raise GateRefused(
            f"release {wish.number} stays where it is: {', '.join(refused)}. See {judged.files[1]}", judged
        )
    if wish.proposed:
        registry.note_proposal(wish.number, refused=refused, loosened=judged.loosened)
        followers.write(registry, wish.number, wish.to)
        return None
    return _move(registry, wish, followers, refused, judged.loosened, files)


def roll_back(
    registry: Registry,
    alias: str,
    question: GateOptions,
    followers: Followers,
    *,
    reason: str,
    who: str | None,
    image: Image | None = None,
) -> Move:
    """Put back what an alias named before. Raises PromotionRefused, RegistryError."""
    alias_moves.require_sense(alias, reason)
    number = alias_moves.before(alias_moves.history(registry), alias)
    if image is not None and number is not None:
        registry.note_image(number, image)
    followers.require_writable(registry, number, alias)
    if number is not None:
        open_proven(registry.fetch(number, question.releases), question)
    move = alias_moves.rollback(registry, alias, why=reason, who=who or alias_moves.whoami())
    followers.write(registry, move.release, alias)
    return move


def judge(registry: Registry, number: int, question: GateOptions, *, again: bool) -> GateResult:
    """The gate's report of a release, fresh or made now. again: although there is a fresh one.

    Raises PromotionRefused where the release cannot be served, VitrineError where nobody says what to ask it."""
    limits = gate.read_thresholds(question.thresholds)
    loosened = gate.loosened(limits)
    release = registry.fetch(number, question.releases)
    candidate = open_proven(release, question)
    live = registry.aliases().get(PRODUCTION)
    production = registry.fetch(live, question.releases) if live is not None and live != number else None
    folder = question.releases / ".gates"
    files = (folder / f"{number}.json", folder / f"{number}.html")
    report = gate.Report.read(files[0])
    if report is not None and not again and report.is_fresh(release, production, limits):
        say(f"gate: the result of {report.created} is taken; `vitrine gate {number}` asks again")
        return GateResult(report, files, loosened)
    if question.catalogue is None:
        raise VitrineError(
            f"there is no fresh gate result of release {number}: say what to ask it with --catalogue FOLDER"
        )
    report = gate.run(candidate, production, read(question.catalogue), limits, user_key=question.user_key)
    files = report.save(folder)
    try:
        registry.add_pages(number, files, "gate")  # where MLflow's own pages show them
    except RegistryError as error:  # the answer stands all the same
        say(f"the gate's page stays in {folder} alone: {error}")
    return GateResult(report, files, loosened)


def open_proven(release: Path, question: GateOptions) -> Recommender:
    """Raises PromotionRefused where it cannot be served: damaged, of a newer format, or not what it was."""
    try:
        opened = Release.open(release, trusted=read_trusted(question.trusted_keys))
        recommender = Recommender(opened, user_key=question.user_key)
        prove(recommender)
    except ReleaseError as error:
        raise PromotionRefused(f"release {release.name} is refused: {error}") from error
    return recommender


def _require_consistent(wish: PromotionRequest, followers: Followers) -> None:
    if wish.proposed and followers.overlay is None:
        raise VitrineError("--propose needs --write-overlay FILE: that is the proposal")
    if wish.proposed and (wish.agreed or wish.to != PRODUCTION):
        raise VitrineError(
            "--propose is for --to production, and moves nothing: --as-proposed comes once it was agreed to"
        )
    if wish.proposed and followers.current is not None:
        raise VitrineError("--propose moves nothing: --write-current cannot go with it")


def _move_as_agreed(registry: Registry, wish: PromotionRequest, followers: Followers) -> Move:
    """No catalogue, no second gate: what was answered when it was proposed counts."""
    there = registry.aliases().get(wish.to) == wish.number
    agreed = {"refused": [], "loosened": []} if there else registry.proposal(wish.number)
    if agreed is None or wish.to != PRODUCTION:
        raise VitrineError(
            f"release {wish.number} was not proposed for {wish.to}: vitrine promote {wish.number} --propose does it"
        )
    move = _move(registry, wish, followers, agreed["refused"], agreed["loosened"], ())
    registry.forget_proposal(wish.number)
    return move


def _move(
    registry: Registry,
    wish: PromotionRequest,
    followers: Followers,
    refused: list[str],
    loosened: list[str],
    reports: tuple[Path, ...],
) -> Move:
    move = alias_moves.promote(
        registry,
        wish.number,
        wish.to,
        why=wish.reason,
        who=wish.who or alias_moves.whoami(),
        forced=bool(refused),
        loosened=loosened,
        reports=reports,
    )
    followers.write(registry, wish.number, wish.to)
    return move
