"""The models that a process serves: names, their versions, and which of them answers.

    load     verified, loaded and proven in a thread of its own, held against the version that it replaces, then served
    use      a request holds a version for as long as it needs it
    unload   no new request gets the version; it goes, and its memory with it, when the last one is answered

All methods but `open` belong to the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import (
    AgreementTooLow,
    DeviceUnavailable,
    DigestMismatch,
    ManifestInvalid,
    ModelUnknown,
    ParameterInvalid,
    PetalpawError,
    SelfTestFailed,
)
from inference.memory import trim
from inference.runtimes.base import Device
from inference.runtimes.registry import cuda_device_count
from service.agreement import Agreement
from service.loader import Key, Loader
from service.settings import PREFIX, Settings
from service.shelf import Shelf
from service.versions import Served, Versions

_log = logging.getLogger("bentoml.petalpaw")

State = Literal["READY", "LOADING", "UNAVAILABLE"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one model. `default`: it answers where no version is named.

    `refused`: the last attempt to load it failed. `reason` says why a version is unavailable, or why one that is served
    could not be loaded anew.
    """

    name: str
    version: str
    state: State
    reason: str
    default: bool
    refused: bool


class Watcher(Protocol):
    """Whoever must know which classifiers there are."""

    def loaded(self, classifier: Classifier) -> None:
        """It will be used from now on."""

    def unloaded(self, classifier: Classifier) -> None:
        """It will not be used any more."""


class Catalog:
    """Models by name, all on one device."""

    def __init__(self, settings: Settings, budget: Budget, device: Device) -> None:
        self.device = device
        self.loader = Loader(settings, budget, device)
        self._settings = settings
        self._agreement = Agreement.of(settings)
        self._models: dict[str, Versions] = {}
        self._loading: set[Key] = set()
        self._reasons: dict[Key, str] = {}
        self._refused: set[Key] = set()
        # What is never loaded unasked: versions that failed for good or were taken out, and models that were.
        self._settled: set[Key] = set()
        self._stopped: set[str] = set()
        self._watchers: list[Watcher] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        # Its own thread: loading must hold up neither the event loop nor the streams.
        self._thread = ThreadPoolExecutor(1, "load")
        self._shelf = Shelf(self.loader.repository.contents)

    @classmethod
    def open(cls, settings: Settings, budget: Budget) -> "Catalog":
        """Load what the settings ask for, by default the latest version of every model.

        Raises ArtifactError or HostError that names the file and says what to do, ModelUnknown and ParameterInvalid
        for settings that name what is not there.
        """
        if settings.device != "auto":
            return cls._opened(settings, budget, settings.device)
        if not cuda_device_count():
            _log.info("device auto: the CPU, because no NVIDIA GPU is visible")
        else:
            try:
                return cls._opened(settings, budget, "cuda")
            except (DeviceUnavailable, SelfTestFailed, ManifestInvalid) as reason:
                _log.warning("device auto: the CPU although there is a GPU: %s", reason)
        return cls._opened(settings, budget, "cpu")

    @classmethod
    def _opened(cls, settings: Settings, budget: Budget, device: Device) -> "Catalog":
        catalog = cls(settings, budget, device)
        for classifier in catalog.loader.load_all(catalog.loader.at_start()):
            try:
                catalog._compare(classifier)
            except AgreementTooLow as error:
                catalog._refuse((classifier.artifact.name, classifier.artifact.version), error)
            else:
                catalog._versions(classifier.artifact.name).put(classifier)
        for name, versions in catalog._models.items():
            versions.default = versions.newest
            catalog._surplus(name, versions)  # the gate needed them, requests do not
            if catalog._agreement is not None:
                catalog._agreement.photos(name)
        trim()
        if settings.default_model is not None and settings.default_model not in catalog._models:
            raise ParameterInvalid(
                f"{PREFIX}DEFAULT_MODEL is {settings.default_model!r}, but what is served is {catalog._names()}"
            )
        return catalog

    @property
    def default(self) -> str | None:
        """The model for requests that name none: the one that the settings name, or the only one."""
        only = next(iter(self._models)) if len(self._models) == 1 else None
        return self._settings.default_model or only

    @property
    def classifiers(self) -> dict[str, Classifier]:
        """The default version of every model that is served, by name."""
        return {name: self._models[name][self._models[name].default].classifier for name in sorted(self._models)}

    @property
    def served(self) -> list[Classifier]:
        """Every version that is served, by name and number."""
        return [
            self._models[name][version].classifier for name in sorted(self._models) for version in self._models[name]
        ]

    @contextmanager
    def use(self, name: str | None, version: str | None = None) -> Iterator[Classifier]:
        """A classifier for as long as it is needed, by default the model's default version.

        Raises ModelUnknown, or ParameterInvalid when a name is needed.
        """
        name = name or self.default
        if name is None and self._models:
            raise ParameterInvalid(f"several models are served; name one of them as 'model': {self._names()}")
        with self._find(name or "", version).used() as classifier:
            yield classifier

    async def listed(self) -> list[Entry]:
        """`index` without waiting for a repository that does not answer; its last listing is taken then."""
        await self._shelf.look()
        return self.index(self._shelf.contents)

    def index(self, contents: Callable[[], list[Key]] | None = None) -> list[Entry]:
        """Every version that is served or lies in the repository, sorted by name and number.

        `contents` lists the repository; by default it is listed now, which blocks.
        """
        keys = {(name, version) for name, versions in self._models.items() for version in versions}
        keys |= self._loading
        try:
            keys |= set((contents or self.loader.repository.contents)())
        # Whatever happens to the repository, what is served is served.
        except ManifestInvalid:
            keys |= self._reasons.keys()
        return [self._entry(*key) for key in sorted(keys, key=lambda key: (key[0], int(key[1])))]

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of every classifier, those that are there already included."""
        self._watchers.append(watcher)
        for classifier in self.served:
            watcher.loaded(classifier)

    async def load(self, name: str, version: str | None = None) -> None:
        """Load a version anew from the repository; without one, the newest, for which older ones make room.

        What was served before goes on until the new one is proven, and stays when it is refused. Raises ModelUnknown,
        ArtifactError or HostError.
        """
        await self._to_the_end(self._load(name, version))

    async def unload(self, name: str, version: str | None = None) -> None:
        """Let go of one version, or of a whole model; returns when their requests are answered and the memory is back.

        Raises ModelUnknown when it is not served.
        """
        await self._to_the_end(self._unload(name, version))

    def follow(self, seconds: float) -> None:
        """From now on, look for new versions in the repository every so many seconds, and load them."""
        self._begin(self._follow(seconds))

    def close(self) -> None:
        """Look for no more versions and begin no more loads."""
        for task in self._tasks:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._shelf.close()

    async def _load(self, name: str, version: str | None) -> None:
        async with self._turn:
            key = await self._aside(self.loader.find, name, version)
            self._loading.add(key)
            try:
                classifier = await self._aside(self._proven, key)
            except ModelUnknown:
                raise
            except PetalpawError as error:
                self._refuse(key, error)
                raise
            finally:
                self._loading.discard(key)
            self._reasons.pop(key, None)
            self._refused.discard(key)
            self._settled.discard(key)
            self._stopped.discard(name)
            versions = self._versions(name)
            leaving = [versions.put(classifier)]
            for watcher in self._watchers:
                watcher.loaded(classifier)
            if version is None:
                leaving += self._surplus(name, versions)
        for served in filter(None, leaving):
            self._begin(self._let_go(served))

    async def _unload(self, name: str, version: str | None) -> None:
        async with self._turn:
            self._find(name, version)
            versions = self._models[name]
            going = [version] if version else [*versions]
            leaving = [versions.take(each) for each in going]
            self._settle(name, going, "unloaded on request")
            if not versions.newest:
                del self._models[name]
                self._stopped.add(name)
        await asyncio.gather(*map(self._let_go, leaving))

    async def _let_go(self, served: Served) -> None:
        """Wait for the last request, then give the memory back."""
        await served.idle.wait()
        for watcher in self._watchers:
            watcher.unloaded(served.classifier)
        del served.classifier
        await self._aside(trim)

    async def _follow(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._look()
            except PetalpawError:
                pass  # it stands in the log and in the index, and may be mended by the next time
            except Exception:  # noqa: BLE001 – a share that is away for a moment must not end the looking
                _log.exception("looking for new versions failed; the next look is in %g s", seconds)

    async def _look(self) -> None:
        for name in await self._aside(self.loader.followed):
            with suppress(PetalpawError):
                if self._lacks(await self._aside(self.loader.find, name)):
                    await self.load(name)

    def _lacks(self, key: Key) -> bool:
        """Whether a newest version is one to load unasked."""
        name, version = key
        return name not in self._stopped and key not in self._settled and version not in self._models.get(name, ())

    def _proven(self, key: Key) -> Classifier:
        classifier = self.loader.load(key)
        self._compare(classifier)
        return classifier

    def _compare(self, new: Classifier) -> None:
        """Hold a version against the one that it would replace. Raises AgreementTooLow."""
        versions = self._models.get(new.artifact.name)
        if self._agreement is None or versions is None or int(new.artifact.version) < int(versions.default):
            return
        old = versions[versions.default].classifier
        if old.artifact.digest != new.artifact.digest:
            self._agreement.check(new, old)

    def _refuse(self, key: Key, error: PetalpawError) -> None:
        if self._reasons.get(key) != error.detail:
            _log.warning("model %s/%s is refused: %s", *key, error.detail)
        self._reasons[key] = error.detail
        self._refused.add(key)
        # A folder that is still being copied looks like these.
        if not isinstance(error, ManifestInvalid | DigestMismatch):
            self._settled.add(key)

    def _surplus(self, name: str, versions: Versions) -> list[Served]:
        named = self.loader.named(name)
        beyond = [version for version in versions.beyond(self._settings.versions) if version not in named]
        self._settle(name, beyond, "replaced by a newer version")
        return [versions.take(version) for version in beyond]

    def _settle(self, name: str, versions: Iterable[str], reason: str) -> None:
        for version in versions:
            self._reasons[name, version] = reason
            self._refused.discard((name, version))
            self._settled.add((name, version))

    def _versions(self, name: str) -> Versions:
        return self._models.setdefault(name, Versions(self._settings.default_version))

    def _find(self, name: str, version: str | None) -> Served:
        versions = self._models.get(name)
        if versions is None:
            raise ModelUnknown(f"there is no model {name[:64]!r}; known: {self._names()}")
        if version is not None and version not in versions:
            raise ModelUnknown(f"version {version[:64]!r} of {name} is not served; served: {', '.join(versions)}")
        return versions[version or versions.default]

    def _names(self) -> str:
        return ", ".join(sorted(self._models)) or "none"

    def _entry(self, name: str, version: str) -> Entry:
        key = (name, version)
        reason, refused = self._reasons.get(key, ""), key in self._refused
        versions = self._models.get(name)
        if versions is not None and version in versions:
            return Entry(name, version, "READY", reason, version == versions.default, refused)
        if key in self._loading:
            return Entry(name, version, "LOADING", "", default=False, refused=False)
        return Entry(name, version, "UNAVAILABLE", reason or "not loaded", default=False, refused=refused)

    async def _aside(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """A client that leaves does not leave a change half done."""
        await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
