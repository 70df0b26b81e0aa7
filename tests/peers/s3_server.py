"""Moto's S3 server with one bucket, and a user who may read it but for what begins with `secret`.

Arguments: port, bucket, a JSON file of keys and their content in base64, and the request for an object with which the
server kills itself (0: with none). Prints the user's access key and its secret, then serves.
"""

import base64
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def fill(bucket: str, objects: dict[str, str]) -> None:
    s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    s3.create_bucket(bucket, "us-east-1")
    for key, content in objects.items():
        s3.put_object(bucket, key, base64.b64decode(content))


def reader(bucket: str) -> tuple[str, str]:
    statements = [
        {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/secret*"},
    ]
    iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    iam.create_user("us-east-1", "reader")
    iam.put_user_policy("reader", "read", json.dumps({"Version": "2012-10-17", "Statement": statements}))
    key = iam.create_access_key("reader")
    return key.access_key_id, key.secret_access_key


def mortal(app: App, bucket: str, last: int) -> App:
    asked = count(1)

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        is_object = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].startswith(f"/{bucket}/")
        if is_object and next(asked) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return app(environ, start_response)

    return serve


if __name__ == "__main__":
    port, bucket, objects, last = sys.argv[1:]
    fill(bucket, json.loads(Path(objects).read_bytes()))
    print(*reader(bucket), flush=True)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # from now on signatures and permissions are checked
    app = mortal(DomainDispatcherApplication(create_backend_app), bucket, int(last))
    run_simple("127.0.0.1", int(port), app, threaded=True, request_handler=MotoRequestHandler)
