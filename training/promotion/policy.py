"""What a release must pass before an alias names it: the gate, a shadow's verdict, what was agreed to."""

from dataclasses import dataclass
from pathlib import Path

from service.errors import PromotionRefused, RegistryError, ReleaseError, VitrineError
from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.signing import read_trusted
from training.data.catalogue_reader import read
from training.picture_digests import remembered_in
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
    image: str | None = None  # NAME:TAG@sha256:...


@dataclass(frozen=True, slots=True)
class GateResult:
    """A report of the gate, its files, and which thresholds asked less than the defaults do."""

    report: gate.Report
    files: tuple[Path, ...]
    loosened: list[str]


class GateRefused(PromotionRefused):
    """The gate, or a shadow, keeps the release back."""

    def __init__(self, message: str, result: GateResult) -> None:
        super().__init__(message)
        self.result = result


def promote(registry: Registry, request: PromotionRequest, options: GateOptions, followers: Followers) -> Move | None:
    """Have an alias name a release, and its followers follow; None where it was proposed alone.

    Everything that can be said against it is said before anything moves. Raises PromotionRefused, RegistryError,
    other VitrineError."""
    alias_moves.require_sense(request.to, request.reason)
    _require_consistent(request, followers)
    if request.image is not None:
        registry.note_image(request.number, Image.parse(request.image))
    followers.require_writable(registry, request.number, request.to)
    if request.agreed:
        return _move_as_agreed(registry, request, followers)
    verdict = None if request.shadow_report is None else read_verdict(request.shadow_report, request.number)
    result = run_gate(registry, request.number, options, again=False)
    refused = [check.name for check in result.report.failed]
    files = result.files
    if verdict is not None and request.shadow_report is not None:
        refused += verdict.failed
        files = (*files, request.shadow_report)
    if refused and not request.forced:
        raise GateRefused(
            f"release {request.number} stays where it is: {', '.join(refused)}. See {result.files[1]}", result
        )
    if request.proposed:
        registry.note_proposal(request.number, refused=refused, loosened=result.loosened)
        followers.write(registry, request.number, request.to)
        return None
    return _move(registry, request, followers, refused, result.loosened, files)


def roll_back(
    registry: Registry,
    alias: str,
    options: GateOptions,
    followers: Followers,
    *,
    reason: str,
    who: str | None,
    image: str | None = None,
) -> Move:
    """Put back what an alias named before. Raises PromotionRefused, RegistryError."""
    alias_moves.require_sense(alias, reason)
    number = alias_moves.before(alias_moves.history(registry), alias)
    if image is not None and number is not None:
        registry.note_image(number, Image.parse(image))
    followers.require_writable(registry, number, alias)
    if number is not None:
        open_proven(registry.fetch(number, options.releases), options)
    move = alias_moves.rollback(registry, alias, why=reason, who=who or alias_moves.whoami())
    followers.write(registry, move.release, alias)
    return move


def run_gate(registry: Registry, number: int, options: GateOptions, *, again: bool) -> GateResult:
    """The gate's report of a release, fresh or made now. again: although there is a fresh one.

    Raises PromotionRefused where the release cannot be served, VitrineError where nobody says what to ask it."""
    limits = gate.read_thresholds(options.thresholds)
    loosened = gate.loosened(limits)
    release = registry.fetch(number, options.releases)
    candidate = open_proven(release, options)
    live = registry.aliases().get(PRODUCTION)
    production = registry.fetch(live, options.releases) if live is not None and live != number else None
    folder = options.releases / ".gates"
    files = (folder / f"{number}.json", folder / f"{number}.html")
    report = gate.Report.read(files[0])
    if report is not None and not again and report.is_fresh(release, production, limits):
        say(f"gate: the result of {report.created} is taken; `vitrine gate {number}` asks again")
        return GateResult(report, files, loosened)
    if options.catalogue is None:
        raise VitrineError(
            f"there is no fresh gate result of release {number}: say what to ask it with --catalogue FOLDER"
        )
    catalogue = read(options.catalogue, remembered=remembered_in(options.releases))
    report = gate.run(candidate, production, catalogue, limits, user_key=options.user_key)
    files = report.save(folder)
    try:
        registry.add_pages(number, files, "gate")  # where MLflow's own pages show them
    except RegistryError as error:  # the answer stands all the same
        say(f"the gate's page stays in {folder} alone: {error}")
    return GateResult(report, files, loosened)


def open_proven(release: Path, options: GateOptions) -> Recommender:
    """Raises PromotionRefused where it cannot be served: damaged, of a newer format, or not what it was."""
    try:
        opened = Release.open(release, trusted=read_trusted(options.trusted_keys))
        recommender = Recommender(opened, user_key=options.user_key)
        prove(recommender)
    except ReleaseError as error:
        raise PromotionRefused(f"release {release.name} is refused: {error}") from error
    return recommender


def _require_consistent(request: PromotionRequest, followers: Followers) -> None:
    if request.proposed and followers.overlay is None:
        raise VitrineError("--propose needs --write-overlay FILE: that is the proposal")
    if request.proposed and (request.agreed or request.to != PRODUCTION):
        raise VitrineError(
            "--propose is for --to production, and moves nothing: --as-proposed comes once it was agreed to"
        )
    if request.proposed and followers.current is not None:
        raise VitrineError("--propose moves nothing: --write-current cannot go with it")


def _move_as_agreed(registry: Registry, request: PromotionRequest, followers: Followers) -> Move:
    """No catalogue, no second gate: what was answered when it was proposed counts."""
    there = registry.aliases().get(request.to) == request.number
    agreed = {"refused": [], "loosened": []} if there else registry.proposal(request.number)
    if agreed is None or request.to != PRODUCTION:
        number = request.number
        raise VitrineError(
            f"release {number} was not proposed for {request.to}: vitrine promote {number} --propose does it"
        )
    move = _move(registry, request, followers, agreed["refused"], agreed["loosened"], ())
    try:
        registry.forget_proposal(request.number)
    except RegistryError as error:  # the alias has moved all the same
        say(f"the proposal of release {request.number} stays noted: {error}")
    return move


def _move(
    registry: Registry,
    request: PromotionRequest,
    followers: Followers,
    refused: list[str],
    loosened: list[str],
    reports: tuple[Path, ...],
) -> Move:
    move = alias_moves.promote(
        registry,
        request.number,
        request.to,
        why=request.reason,
        who=request.who or alias_moves.whoami(),
        forced=bool(refused),
        loosened=loosened,
        reports=reports,
    )
    followers.write(registry, request.number, request.to)
    return move
