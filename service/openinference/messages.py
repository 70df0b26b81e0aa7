"""The protocol's JSON objects, as types.

What is read is strict about what it needs and ignores what it does not know, as Triton does: KServe's client, for one,
repeats the model's name in the body.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

_MOST_TENSORS = 16
_ONE_ERROR = FailFast()
"""A list of a million wrong things is refused for the first: an answer must not be larger than its request."""

VERSION = r"^[1-9][0-9]{0,8}$"
"""A version in the repository."""

Size = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
Scalar = StrictStr | StrictBool | StrictInt | float
Parameters = dict[str, Scalar]


def _whole(text: str) -> str:
    """JSON can spell halves of characters, which no answer could repeat. Raises ValueError."""
    text.encode()
    return text


Whole = Annotated[StrictStr, AfterValidator(_whole)]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, content: Any) -> Any:
        return {key: value for key, value in content.items() if value is not None} if type(content) is dict else content


class _SharedMemory(_Read):
    shared_memory_region: Any = None


class InputParameters(_SharedMemory):
    """`content_type` is KServe's and MLServer's; `base64` is the only one that changes what a tensor means."""

    binary_data_size: Size | None = None
    content_type: StrictStr | None = None


class RequestInput(_Read):
    """One input tensor; `data` is absent when it stands in binary form behind the JSON object."""

    name: StrictStr
    shape: Annotated[tuple[Size, ...], Field(max_length=8), _ONE_ERROR]
    datatype: StrictStr
    parameters: InputParameters = InputParameters()
    data: Any = None


class OutputParameters(_SharedMemory):
    """`classification` is the number of classes wanted instead of the tensor."""

    binary_data: StrictBool | None = None
    classification: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None


class RequestOutput(_Read):
    """One output that is wanted."""

    name: StrictStr
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Read):
    """`binary_data_output` holds for the outputs that do not say themselves.

    `timeout` is Triton's: microseconds after which nobody waits for the answer; 0 for no limit.
    """

    binary_data_output: StrictBool = False
    timeout: Annotated[StrictInt, Field(ge=0, le=10**12)] = 0


class InferRequest(_Read):
    """What a client wants inferred; without `outputs`, everything but the errors."""

    id: Whole | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[tuple[RequestInput, ...], Field(max_length=_MOST_TENSORS), _ONE_ERROR]
    outputs: Annotated[tuple[RequestOutput, ...], Field(max_length=_MOST_TENSORS), _ONE_ERROR] = ()


class IndexRequest(_Read):
    """Which entries of the index are wanted."""

    ready: StrictBool = False


class ControlParameters(_Read):
    """`version` is Petalpaw's; `config` and `file:…` are Triton's for models that a request brings along."""

    model_config = ConfigDict(frozen=True, extra="allow")
    version: Annotated[StrictStr, Field(pattern=VERSION)] | None = None

    @model_validator(mode="after")
    def _only_from_the_repository(self) -> "ControlParameters":
        if any(name == "config" or name.startswith("file:") for name in self.model_extra or ()):
            raise ValueError("a model's files and configuration come from the repository alone, not from a request")
        return self


class ControlRequest(_Read):
    """What a load or unload may say."""

    parameters: ControlParameters = ControlParameters()


class Refusal(BaseModel):
    """The protocol's error: a code of docs/errors.md, a colon, and words."""

    error: str


class ServerMetadata(BaseModel):
    """GET /v2."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(BaseModel):
    """GET /v2/health/live. The protocol asks for the status alone; KServe's client reads this too."""

    live: bool


class Ready(BaseModel):
    """GET /v2/health/ready, as `Live`."""

    ready: bool


class ModelReady(Ready):
    """GET /v2/models/{name}/ready."""

    name: str


class TensorMetadata(BaseModel):
    """A tensor; -1 stands for a size that the client chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(BaseModel):
    """GET /v2/models/{name}. A request takes one of the `inputs`."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ModelState(BaseModel):
    """One version in the index; `reason` says why it is not ready, or could not be loaded anew."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class ResponseOutput(BaseModel):
    """One output tensor; `data` is flat, row by row, and absent when it follows the JSON object in binary form."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Annotated[Parameters, Field(exclude_if=lambda parameters: not parameters)] = {}
    data: Annotated[list[Any] | None, Field(exclude_if=lambda data: data is None)] = None


class InferResponse(BaseModel):
    """The answer; `parameters` say which artifact ran on what."""

    model_name: str
    model_version: str
    id: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    parameters: Parameters
    outputs: list[ResponseOutput]


class Duration(BaseModel):
    """How often, and for how many nanoseconds in all."""

    count: int = 0
    ns: int = 0


class StageStatistics(BaseModel):
    """`success` and `fail` are per request, the rest per picture. Nothing is cached; results are sent as they are."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(BaseModel):
    """Runs of the model with so many pictures."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration
    compute_output: Duration = Duration()


class ModelStatistics(BaseModel):
    """One version; `last_inference` is in milliseconds since 1970, 0 for never."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: StageStatistics
    batch_stats: list[BatchStatistics]


class StatisticsResponse(BaseModel):
    """GET /v2/models/stats."""

    model_stats: list[ModelStatistics]
