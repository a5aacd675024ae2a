"""What serves the release that an alias names: an overlay, which pods follow, and a pointer file, which a service does.

The registry says what should be served; these are moved after it, and `vitrine status` compares them with it.
"""

from dataclasses import dataclass
from pathlib import Path

from service.errors import RegistryError, ReleaseDamaged, VitrineError
from service.release import point, resolve
from training import overlays
from training.registry import Registry


@dataclass(frozen=True, slots=True)
class Followers:
    """overlay: a kustomization.yaml; current: a file beside releases, such as releases/current. Either may be None."""

    overlay: Path | None = None
    current: Path | None = None

    def require_writable(self) -> None:
        """Said before anything moves. Raises VitrineError."""
        if self.overlay is not None:
            overlays.read(self.overlay)
        if self.current is not None and (self.current.exists() or not self.current.parent.is_dir()):
            pointed(self.current)

    def write(self, registry: Registry, number: int) -> None:
        """Have them name a release, which lies beside the pointer before that names it. Raises VitrineError."""
        try:
            if self.overlay is not None:
                overlays.write(self.overlay, number, registry.image(number))
            if self.current is not None:
                registry.fetch(number, self.current.parent)
                point(self.current, f"{number}\n")
        except OSError as error:
            raise RegistryError(
                f"{error.filename} cannot be written ({error.strerror}); the registry names release {number} already: "
                "vitrine status shows who follows"
            ) from error

    def named(self) -> dict[str, int]:
        """The release that each names. Raises VitrineError."""
        found = {} if self.overlay is None else {str(self.overlay): overlays.read(self.overlay)}
        return found if self.current is None else {**found, str(self.current): pointed(self.current)}


def pointed(current: Path) -> int:
    """The release that a pointer file names. Raises VitrineError."""
    if not current.is_file():
        raise VitrineError(f"{current}: expected a file beside the releases that holds the number of one, such as 7")
    try:
        return int(resolve(current).name)
    except ReleaseDamaged as error:
        raise VitrineError(str(error)) from error
