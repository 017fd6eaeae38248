"""Where a profile's outputs live: each profile has separate folders, so that none overwrites another's."""

from dataclasses import dataclass
from pathlib import Path

from hkd_core.common.params import chosen_profile
from hkd_core.common.root import find_root


@dataclass(frozen=True)
class Folders:
    """The folders of one profile under the project's root. Nothing is created here."""

    root: Path
    profile: str

    @property
    def data(self) -> Path:
        return self.root / "data" / self.profile

    @property
    def models(self) -> Path:
        return self.root / "models" / self.profile

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.profile

    @property
    def figures(self) -> Path:
        return self.reports / "figures"

    @property
    def tables(self) -> Path:
        return self.reports / "tables"

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics"

    @property
    def notebooks(self) -> Path:
        """Executed notebooks."""
        return self.reports / "notebooks"

    @property
    def build(self) -> Path:
        """What can be made again: logs, half-done work."""
        return self.root / "build" / self.profile


def load_folders(profile: str | None = None) -> Folders:
    """The folders of `profile`, or of the profile that params.yaml chooses. Raises UserError as `chosen_profile` does."""
    return Folders(find_root(), profile or chosen_profile())
