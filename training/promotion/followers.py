"""What serves the release that an alias names: an overlay, which pods follow, and a pointer file, which a service does.

The registry says what should be served; these are moved after it, and `vitrine status` compares them with it.
"""

from dataclasses import dataclass
from pathlib import Path

from service.errors import RegistryError, ReleaseDamaged, VitrineError
from service.recommender.release import point, resolve
from training.promotion import overlays
from training.promotion.registry import CANARY, Registry


@dataclass(frozen=True, slots=True)
class Followers:
    """overlay: a kustomization.yaml; current: a file beside releases, such as releases/current. Either may be None."""

    overlay: Path | None = None
    current: Path | None = None

    def require_writable(self, registry: Registry, number: int | None, alias: str) -> None:
        """Said before anything moves. number: the release that they will name, or None. Raises VitrineError."""
        if self.overlay is not None:
            (overlays.require_place_for_candidate if alias == CANARY else overlays.read)(self.overlay)
            wanted = alias == CANARY or overlays.needs_image(self.overlay)
            if number is not None and wanted and registry.image(number) is None:
                raise RegistryError(
                    f"nobody has said which image release {number} is in, and a tag alone may come to mean another: "
                    "--image NAME:TAG@sha256:..., as make image-reference prints it"
                )
        if self.current is not None and (self.current.exists() or not self.current.parent.is_dir()):
            pointed(self.current)

    def write(self, registry: Registry, number: int | None, alias: str) -> None:
        """Have them name a release, which lies beside the pointer before that names it; None, of a canary: none.
        Raises VitrineError."""
        try:
            if self.overlay is not None and alias == CANARY:
                overlays.write_candidate(self.overlay, None if number is None else registry.image(number))
            elif self.overlay is not None and number is not None:
                overlays.write(self.overlay, number, registry.image(number))
            if self.current is not None and number is not None:
                registry.fetch(number, self.current.parent)
                point(self.current, f"{number}\n")
        except OSError as error:
            raise RegistryError(
                f"{error.filename} cannot be written ({error.strerror}); the registry names release {number} already: "
                "vitrine status shows who follows"
            ) from error

    def named(self, alias: str) -> dict[str, int | None]:
        """The release that each names, None for none. Raises VitrineError."""
        found: dict[str, int | None] = {}
        if self.overlay is not None:
            read = overlays.read_candidate if alias == CANARY else overlays.read
            found[str(self.overlay)] = read(self.overlay)
        return found if self.current is None else {**found, str(self.current): pointed(self.current)}


def pointed(current: Path) -> int:
    """The release that a pointer file names. Raises VitrineError."""
    if not current.is_file():
        raise VitrineError(f"{current}: expected a file beside the releases that holds the number of one, such as 7")
    try:
        return int(resolve(current).name)
    except ReleaseDamaged as error:
        raise VitrineError(str(error)) from error
