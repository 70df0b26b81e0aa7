"""Keys, scopes, headers for browsers, and what never happens: files opened and addresses fetched for a stranger."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from inference.errors import Forbidden, ParameterInvalid, Unauthorized
from inference.repository import Repository
from service.security import Gate, read_keys
from service.settings import Settings
from tests.service.conftest import ADMIN_KEY, FILED_KEY, ORIGIN, PREDICT_KEY, ROOT, Server, environment, is_problem

JPEG = {"content-type": "image/jpeg"}
URL = "/classify?model=colours"


@pytest.mark.parametrize("key", [PREDICT_KEY, ADMIN_KEY, FILED_KEY])
@pytest.mark.parametrize("form", ["Authorization", "X-API-Key"])
def test_a_right_key_predicts(guarded: Server, picture: Callable[..., bytes], key: str, form: str) -> None:
    value = f"Bearer {key}" if form == "Authorization" else key
    assert guarded.client.post(URL, content=picture(), headers={**JPEG, form: value}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {PREDICT_KEY}"},
        {"Authorization": PREDICT_KEY},
        {"X-API-Key": PREDICT_KEY[:-1]},
        {"X-API-Key": PREDICT_KEY + "x"},
        {"X-API-Key": ""},
        {"X-API-Key": f"predict:{PREDICT_KEY}"},
        {"X-API-Key": "schlüssel".encode().decode("latin-1")},
        {"Cookie": f"X-API-Key={PREDICT_KEY}"},
    ],
    ids=range(11),
)
def test_no_key_or_a_wrong_one(guarded: Server, picture: Callable[..., bytes], headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in {**JPEG, **headers}.items()]
    response = guarded.client.post(URL, content=picture(), headers=raw)
    is_problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/models", "/models/colours", "/metrics", "/v2/models/colours", "/v2", "/nothing"])
def test_everything_but_health_and_pages_needs_a_key(guarded: Server, path: str) -> None:
    assert guarded.client.get(path).status_code == 401
    assert guarded.client.get(path, headers={"X-API-Key": PREDICT_KEY}).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs.json", "/v2/health/live", "/v2/health/ready", "/ui"])
def test_health_and_pages_are_open(guarded: Server, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["//models", "/./models", "/models/../livez", "/LIVEZ", "/livez/../models", "/livez%2f"]
)
def test_no_spelling_of_an_address_is_open_by_mistake(guarded: Server, path: str) -> None:
    connection = socket.create_connection(("127.0.0.1", guarded.port), timeout=20)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = b""
    while part := connection.recv(65536):
        received += part
    connection.close()
    assert received.split(b" ")[1] in (b"401", b"404")


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_repository_control_needs_an_admin_key(guarded: Server, server: Server, verb: str) -> None:
    path = f"/v2/repository/models/roses/{verb}"
    assert guarded.client.post(path).status_code == 401
    refused = guarded.client.post(path, headers={"X-API-Key": PREDICT_KEY})
    assert refused.status_code == 403
    assert refused.json()["error"].startswith("forbidden: ")
    assert guarded.client.post(path, headers={"X-API-Key": ADMIN_KEY}).status_code not in (401, 403)
    off = server.client.post(path)
    assert off.status_code == 403
    assert "PETALPAW_API_KEYS" in off.json()["error"]


def test_browsers_are_told_what_they_may(guarded: Server, server: Server) -> None:
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,content-type",
    }
    allowed = guarded.client.options("/classify", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert guarded.client.options("/classify", headers={**asked, "Origin": "https://evil.example"}).status_code == 400
    # An error can be read by the page too, or nobody would know what it was.
    assert guarded.client.get("/models", headers={"Origin": ORIGIN}).headers["access-control-allow-origin"] == ORIGIN
    assert not [name for name in server.client.get("/models", headers=asked).headers if name.startswith("access-c")]
    is_problem(server.client.options("/classify", headers=asked), 405, "method_unsupported")


def test_safe_headers_and_no_banner(server: Server) -> None:
    for path in ("/livez", "/models", "/nothing", "/metrics", "/docs.json"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert "x-powered-by" not in headers
    page = server.client.get("/ui").headers
    assert "default-src 'none'" in page["content-security-policy"]
    assert page["referrer-policy"] == "no-referrer"


def test_nothing_is_fetched_for_anybody(server: Server) -> None:
    """There is no way to make the service open a connection: an address is refused as a picture, in every form."""
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(2)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/a.jpg"

        def listen() -> None:
            try:
                listening.accept()
                called.set()
            except TimeoutError:
                pass

        thread = threading.Thread(target=listen)
        thread.start()
        for body in ({"images": [address]}, {"urls": [address]}, {"images": [{"url": address}]}):
            assert server.client.post("/classify?model=colours", json=body).status_code == 422
        files = {"images": ("a.jpg", address.encode())}
        assert server.client.post(URL, files=files).status_code == 415
        for number, data in enumerate((f'<svg><image href="{address}"/></svg>', address, f"url({address})")):
            response = server.client.post(URL, content=data.encode(), headers=JPEG)
            assert response.status_code == 415, number
        thread.join()
    assert not called.is_set()


WATCHED = """
import os, sys
from tests.service.within import serve

CANARY = "canary-in-the-coal-mine"
reached = []

def opened(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "os.chdir") and CANARY in str(arguments[0]):
        reached.append((event, arguments[0]))

def watched(function):
    def look(path, *arguments, **options):
        if CANARY in str(path):
            reached.append((function.__name__, path))
        return function(path, *arguments, **options)
    return look

def ask(client):
    sys.addaudithook(opened)
    os.stat, os.lstat, os.readlink = watched(os.stat), watched(os.lstat), watched(os.readlink)
    try:
        open(CANARY)
    except FileNotFoundError:
        assert reached.pop() == ("open", CANARY)
    for name in (CANARY, "../" + CANARY, "/tmp/" + CANARY, "..%2f" + CANARY, "%2e%2e%2f" + CANARY, CANARY + "%00"):
        for path in ("/models/", "/v2/models/", "/v2/models/colours/versions/", "/ui/", "/"):
            client.get(path + name)
        admin = {"x-api-key": "admin-key-of-the-tests"}
        for verb in ("load", "unload"):
            client.post(f"/v2/repository/models/{name}/{verb}", headers=admin)
        client.post(f"/v2/models/{name}/infer", json={})
        client.post(f"/classify?model={name}", content=b"x", headers={"content-type": "image/png"})
        client.post("/classify", files={"images": (name, b"x")}, data={"model": name})
        client.post("/classify", json={"images": [name], "model": name})
serve(ask)
# An admin who loads a model by its plain name has the repository searched for it, and nothing else.
sought = os.path.join(os.environ["PETALPAW_MODELS"], CANARY)
reached = [one for one in reached if str(one[1]) != sought]
sys.exit(f"reached the file system: {reached}" if reached else 0)
"""


def test_no_path_of_a_request_reaches_the_file_system(tmp_path: Path, repository: Repository) -> None:
    settings = environment(tmp_path, models=repository.root, device="cpu", api_keys=f"admin:{ADMIN_KEY}")
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_files_do_not_lead_out_of_their_folder(server: Server) -> None:
    for path in ("../app.py", "..%2fbase_app.py", "%2e%2e/base_app.py", "/etc/passwd", "%00"):
        assert server.client.get(f"/static_content/{path}").status_code in (400, 404), path


def test_scopes() -> None:
    gate = Gate(read_keys(f"admin:{ADMIN_KEY}", "x"))
    gate.admit("/classify", Headers())
    with pytest.raises(Unauthorized):
        gate.admit("/v2/repository/models/a/load", Headers())
    gate.admit("/v2/repository/models/a/load", Headers({"X-API-Key": ADMIN_KEY}))
    assert str(gate) == "prediction is open to everybody, loading and unloading needs an admin key"
    with pytest.raises(Forbidden):
        Gate().admit("/v2/repository/models/a/load", Headers({"X-API-Key": ADMIN_KEY}))
    closed = Gate(read_keys(f"predict:{PREDICT_KEY}", "x"), open_metrics=False)
    for path in ("/metrics", "/v2/repository/index", "/ui2", "/livezz", "/models"):
        with pytest.raises(Unauthorized):
            closed.admit(path, Headers())


@pytest.mark.parametrize(
    "entry",
    [
        "secret-but-no-scope",
        "root:0123456789abcdef",
        "predict:short",
        "predict:",
        "admin:a b",
        "admin:0123456789abcdef#1",
        "admin:schlüssel-für-alle",
    ],
)
def test_a_key_that_is_none_ends_the_start_unseen(entry: str) -> None:
    with pytest.raises(ParameterInvalid, match="entry 2 of PETALPAW_API_KEYS") as caught:
        Gate.of(Settings(api_keys=f"predict:{PREDICT_KEY},{entry}"))
    assert entry == "predict:" or entry not in caught.value.detail
    assert PREDICT_KEY not in repr(Settings(api_keys=f"predict:{PREDICT_KEY}"))


def test_a_file_of_keys_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ParameterInvalid, match="PETALPAW_API_KEYS_FILE"):
        Gate.of(Settings(api_keys_file=tmp_path / "absent"))


@pytest.mark.parametrize("text", ["", "\n", "# keys come here\n", " , ,", "\ufeff# x"])
def test_a_place_for_keys_without_one_does_not_open_the_service(tmp_path: Path, text: str) -> None:
    filed = tmp_path / "keys"
    filed.write_text(text)
    with pytest.raises(ParameterInvalid, match="keys"):
        Gate.of(Settings(api_keys_file=filed))
    if text:
        with pytest.raises(ParameterInvalid, match="PETALPAW_API_KEYS"):
            Gate.of(Settings(api_keys=text))


def test_comments_stand_behind_a_blank() -> None:
    text = f"# first\npredict:{PREDICT_KEY} # of the tests, not of others\n\t#\nadmin:{ADMIN_KEY}\n"
    assert [key.scope for key in read_keys(text, "x")] == ["predict", "admin"]


@pytest.mark.parametrize("origins", ["pictures.example", "https://a.example/path", "*,*", "ftp://a"])
def test_origins_are_checked(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Settings(cors_origins=origins)
