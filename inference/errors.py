"""Every error that Petalpaw raises on purpose, each with a stable code and an HTTP status.

    bytes → decode ─────────→ ImageError       one picture is bad; its neighbours are answered
    HTTP  → parse ──────────→ RequestError     the request as a whole cannot be answered
    disk  → manifest, digest → ArtifactError   a model folder is refused; nothing starts on it
    host  → runtime, device ─→ HostError       this machine lacks what was asked for
    work  → recipe, data, …  → WorkError       a command cannot go on; exit status 3

    PetalpawError
    ├── ImageError
    │   ├── ImageEmpty            image_empty             422
    │   ├── ImageUnsupported      image_unsupported       415
    │   ├── ImageTruncated        image_truncated         422
    │   ├── ImageTooManyPixels    image_too_many_pixels   413
    │   └── ImageUnreadable       image_unreadable        422
    │       └── ImageUnreachable  image_unreachable       424
    ├── RequestError
    │   ├── ParameterInvalid      parameter_invalid       422
    │   ├── RequestMalformed      request_malformed       400
    │   ├── HeadersTooLarge       headers_too_large       431
    │   ├── UploadTooSlow         upload_too_slow         408
    │   ├── Unauthorized          unauthorized            401
    │   ├── Forbidden             forbidden               403
    │   ├── ModelUnknown          model_unknown           404
    │   ├── RequestTooLarge       request_too_large       413
    │   ├── TooManyImages         too_many_images         413
    │   ├── ImagesFailed          images_failed           422
    │   ├── PathUnknown           path_unknown            404
    │   ├── MethodUnsupported     method_unsupported      405
    │   ├── Overloaded            overloaded              429
    │   ├── NotReady              not_ready               503
    │   └── DeadlineExceeded      deadline_exceeded       504
    ├── ArtifactError
    │   ├── ManifestInvalid       manifest_invalid        503
    │   ├── DigestMismatch        digest_mismatch         503
    │   ├── SelfTestFailed        self_test_failed        503
    │   ├── AgreementTooLow       agreement_too_low       409
    │   └── PublishRefused        publish_refused         409
    ├── HostError
    │   ├── RuntimeMissing        runtime_missing         503
    │   ├── PackageMissing        package_missing         503
    │   ├── ClusterUnavailable    cluster_unavailable     503
    │   ├── DeviceUnavailable     device_unavailable      503
    │   ├── AddressUnavailable    address_unavailable     503
    │   └── MemoryShort           memory_short            503
    └── WorkError
        ├── RecipeInvalid         recipe_invalid          422
        ├── DataInvalid           data_invalid            422
        ├── SourceGone            source_gone             503
        ├── RunInvalid            run_invalid             422
        ├── DownloadFailed        download_failed         502
        └── OutputUnwritable      output_unwritable       422

A code never changes its meaning; the same code stands in an HTTP answer, in a row of a scoring run and in a log.
"""

from typing import ClassVar


class PetalpawError(Exception):
    """Base of the tree.

    `detail` says what happened and what to do next, in words meant for the person who asked.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ImageError(PetalpawError):
    """One picture cannot be classified; the others of the same request or run are unharmed."""


class ImageEmpty(ImageError):
    """No bytes at all."""

    code, status = "image_empty", 422


class ImageUnsupported(ImageError):
    """The bytes are not a picture in any accepted format."""

    code, status = "image_unsupported", 415


class ImageTruncated(ImageError):
    """The bytes begin like a picture but end early or are damaged."""

    code, status = "image_truncated", 422


class ImageTooManyPixels(ImageError):
    """Decoding or resizing the picture would need more pixels than allowed."""

    code, status = "image_too_many_pixels", 413


class ImageUnreadable(ImageError):
    """The file that should hold the picture could not be opened or read (offline only)."""

    code, status = "image_unreadable", 422


class ImageUnreachable(ImageUnreadable):
    """The server that should have the picture gives no answer, or says that it cannot just now (offline only)."""

    code, status = "image_unreachable", 424


class RequestError(PetalpawError):
    """A request that cannot be answered as a whole."""


class ParameterInvalid(RequestError):
    """A field is missing, unknown or outside its range."""

    code, status = "parameter_invalid", 422


class RequestMalformed(RequestError):
    """The bytes are no HTTP request."""

    code, status = "request_malformed", 400


class HeadersTooLarge(RequestError):
    """The request line and the headers are longer, or more, than the service reads."""

    code, status = "headers_too_large", 431


class UploadTooSlow(RequestError):
    """The head or the body of a request arrives so slowly that it only holds a connection."""

    code, status = "upload_too_slow", 408


class Unauthorized(RequestError):
    """No key, or a wrong one, where one is required."""

    code, status = "unauthorized", 401


class Forbidden(RequestError):
    """The key is right, but not for this; or nobody may do it here."""

    code, status = "forbidden", 403


class ModelUnknown(RequestError):
    """No such model, or no such version of it."""

    code, status = "model_unknown", 404


class RequestTooLarge(RequestError):
    """The body is larger than the service accepts."""

    code, status = "request_too_large", 413


class TooManyImages(RequestError):
    """More pictures in one request than the service accepts."""

    code, status = "too_many_images", 413


class ImagesFailed(RequestError):
    """None of the pictures of a request with several could be classified; each has an error of its own."""

    code, status = "images_failed", 422


class PathUnknown(RequestError):
    """The service has nothing at this address."""

    code, status = "path_unknown", 404


class MethodUnsupported(RequestError):
    """The address exists, but not for this HTTP method."""

    code, status = "method_unsupported", 405


class Overloaded(RequestError):
    """The queue is full; `retry_after` is the time in seconds after which to try again."""

    code, status = "overloaded", 429

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotReady(RequestError):
    """The service takes no requests: it has no model, or it is about to end."""

    code, status = "not_ready", 503


class DeadlineExceeded(RequestError):
    """The answer would have come later than the caller waits."""

    code, status = "deadline_exceeded", 504


class ArtifactError(PetalpawError):
    """A model folder that must not be used."""


class ManifestInvalid(ArtifactError):
    """manifest.json is missing, unreadable, of another format version or contradicts itself."""

    code, status = "manifest_invalid", 503


class DigestMismatch(ArtifactError):
    """A file of the artifact is missing or not the one that was published."""

    code, status = "digest_mismatch", 503


class SelfTestFailed(ArtifactError):
    """The artifact does not give PyTorch's answers on this machine, or its int8 file not those of its export."""

    code, status = "self_test_failed", 503


class AgreementTooLow(ArtifactError):
    """A new version says something else about too many photos than the version that it would replace.

    So may an int8 file against the artifact's model.onnx.
    """

    code, status = "agreement_too_low", 409


class PublishRefused(ArtifactError):
    """The artifact may not enter the model repository as it is."""

    code, status = "publish_refused", 409


class HostError(PetalpawError):
    """This machine lacks what was asked for."""


class RuntimeMissing(HostError):
    """The runtime's package is not installed, or the artifact has no file for it."""

    code, status = "runtime_missing", 503


class PackageMissing(HostError):
    """What was asked for needs a package that is not installed; the message names the extra that brings it."""

    code, status = "package_missing", 503


class ClusterUnavailable(HostError):
    """The Ray cluster cannot be reached, has no room or gave up (offline only); what was committed stays."""

    code, status = "cluster_unavailable", 503


class DeviceUnavailable(HostError):
    """The device was demanded and cannot be had; it is never replaced silently."""

    code, status = "device_unavailable", 503


class AddressUnavailable(HostError):
    """The service cannot listen where it was told to."""

    code, status = "address_unavailable", 503


class MemoryShort(HostError):
    """The container may use less memory than the service needs to start."""

    code, status = "memory_short", 503


class WorkError(PetalpawError):
    """A command cannot go on."""


class RecipeInvalid(WorkError):
    """A recipe has unknown keys, wrong types or impossible values; all of them are listed."""

    code, status = "recipe_invalid", 422


class DataInvalid(WorkError):
    """A folder of photos lacks what training or scoring needs; all problems are listed."""

    code, status = "data_invalid", 422


class SourceGone(WorkError):
    """The folder, bucket or table that is being scored went away as a whole; what was committed stays."""

    code, status = "source_gone", 503


class RunInvalid(WorkError):
    """A run folder or checkpoint is missing, unreadable or belongs to another recipe."""

    code, status = "run_invalid", 422


class DownloadFailed(WorkError):
    """A file could not be had from any of its addresses, or was another than it should be."""

    code, status = "download_failed", 502


class OutputUnwritable(WorkError):
    """The place for the results exists already, cannot be written, or is full; what was written stays."""

    code, status = "output_unwritable", 422
