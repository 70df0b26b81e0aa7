import re
from pathlib import Path
from typing import Any, get_args

import pytest

from commands.serving import PATHS
from inference.errors import ParameterInvalid
from service.settings import PREFIX, Settings, misspelt, read_settings
from tests.service.conftest import ROOT

ROW = re.compile(r"^\| `(PETALPAW_\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)


def default(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def test_the_documentation_is_the_code() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    documented = ROW.findall(page)
    coded = [
        (PREFIX + name.upper(), default(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert documented == coded


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
        ("RUNTIME", "tensorflow", "'openvino-bf16', 'onnx-int8' or 'openvino-int8'"),
        ("BATCHING", "yes", "'auto', 'streams' or 'adaptive'"),
        ("STREAMS", "0", "greater than or equal to 1"),
        ("TOP_K", "many", "valid integer"),
        ("MAX_BODY_BYTES", "5", "greater than or equal to 1024"),
        ("MAX_UPLOADS_BYTES", "1000000", "at least the 33,554,432 of PETALPAW_MAX_BODY_BYTES"),
        ("REQUEST_TIMEOUT_S", "3600", "less than or equal to 55"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ParameterInvalid) as caught:
        read_settings()
    assert f"{PREFIX}{name} is {value!r}" in caught.value.detail
    assert said in caught.value.detail


def test_every_wrong_value_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETALPAW_DEVICE", "gpu")
    monkeypatch.setenv("PETALPAW_MAX_IMAGES", "none")
    with pytest.raises(ParameterInvalid, match=r"PETALPAW_DEVICE.*PETALPAW_MAX_IMAGES"):
        read_settings()


def test_settings_come_from_the_environment_and_empty_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETALPAW_MODELS", "/srv/models")
    monkeypatch.setenv("PETALPAW_STREAMS", "3")
    monkeypatch.setenv("PETALPAW_DEFAULT_MODEL", "")
    settings = read_settings()
    assert (settings.models, settings.streams, settings.default_model) == (Path("/srv/models"), 3, None)


def test_misspelt_variables_are_named_and_those_of_kubernetes_are_not() -> None:
    environment = {
        "PETALPAW_TOPK": "3",
        "PETALPAW_SERVICE_HOST": "10.0.0.1",
        "PETALPAW_PORT": "tcp://10.0.0.1:3000",
        "PETALPAW_PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "PETALPAW_DEVICE": "cpu",
    }
    assert misspelt(environment) == ["PETALPAW_TOPK is not a setting; PETALPAW_TOP_K is"]


@pytest.mark.parametrize(
    ("batching", "device", "batched"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("streams", "cuda", False),
        ("adaptive", "cpu", True),
    ],
)
def test_batching_follows_the_device_unless_told(batching: Any, device: Any, batched: bool) -> None:
    assert Settings(batching=batching).batched(device) is batched


def test_relative_paths_begin_where_the_command_is_given() -> None:
    paths = {
        name for name, field in Settings.model_fields.items() if Path in (field.annotation, *get_args(field.annotation))
    }
    assert {f"{PREFIX}{name.upper()}" for name in paths - {"models"}} == set(PATHS)
