"""The gate before a version takes the place of another: both must mostly say the same about the operator's photos.

The golden inputs cannot serve for that: they are patterns made by code, on which two good versions of a model may well
differ. So the gate asks for photos.
"""

from dataclasses import dataclass
from pathlib import Path

from inference.classifier import Classifier
from inference.errors import AgreementTooLow, ImageError, ParameterInvalid
from service.settings import PREFIX, Settings


@dataclass(frozen=True, slots=True)
class Agreement:
    """`least` is the share of the photos in `probes`/<model>/, 0…1, on which the best labels must be equal."""

    least: float
    probes: Path
    max_pixels: int

    @classmethod
    def of(cls, settings: Settings) -> "Agreement | None":
        """The gate that the settings ask for, if they do. Raises ParameterInvalid when they lack the photos for it."""
        if settings.agreement is None:
            return None
        if settings.probes is None:
            raise ParameterInvalid(f"{PREFIX}AGREEMENT is set, but not {PREFIX}PROBES: name a folder of photos there")
        return cls(settings.agreement, settings.probes, settings.max_pixels)

    def check(self, new: Classifier, old: Classifier) -> None:
        """Compare two versions of one model. Raises AgreementTooLow, or ParameterInvalid for a bad photo."""
        photos = self.photos(new.artifact.name)
        agreed = sum(_label(new, photo, self.max_pixels) == _label(old, photo, self.max_pixels) for photo in photos)
        if agreed < self.least * len(photos):
            raise AgreementTooLow(
                f"{_named(new)} agrees with {_named(old)} on {agreed} of {len(photos)} photos, {self.least:.1%} are "
                f"asked for; {_named(old)} goes on. Publish a better version, or change {PREFIX}AGREEMENT"
            )

    def photos(self, name: str) -> list[Path]:
        """The photos for a model. Raises ParameterInvalid when there are none."""
        folder = self.probes / name
        photos = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
        if not photos:
            raise ParameterInvalid(
                f"there is no photo in {folder} to compare versions on; put some there, or unset {PREFIX}AGREEMENT"
            )
        return photos


def _label(classifier: Classifier, photo: Path, max_pixels: int) -> str:
    try:
        (outcome,) = classifier.classify([photo.read_bytes()], 1, max_pixels)
    except OSError as error:
        raise ParameterInvalid(f"{photo} cannot be read ({error.strerror}); mend or remove it") from error
    if isinstance(outcome, ImageError):
        raise ParameterInvalid(f"{photo} is no photo to compare the versions on ({outcome.detail}); remove it")
    return outcome.label


def _named(classifier: Classifier) -> str:
    return f"{classifier.artifact.name}/{classifier.artifact.version}"
