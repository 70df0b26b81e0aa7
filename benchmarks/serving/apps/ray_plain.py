"""Ray Serve: a deployment with a replica per core, the request's body read from Starlette's request.

docs.ray.io/en/latest/serve/advanced-guides/performance.html (a core reserved for each replica), /serve/http-guide.html,
…/kuberay/user-guides/serve-high-throughput.html (HAProxy before the replicas, which contenders.py sets: 2.5 times as
fast here as the proxy that is the default).
"""

import os

import ray
from plain import WORKERS, classify, session
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=WORKERS, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=8)
class Plain:
    def __init__(self) -> None:
        self.model = session()

    async def __call__(self, request: Request) -> dict[str, object]:
        return classify(self.model, await request.body())


if __name__ == "__main__":
    ray.init(num_cpus=WORKERS, include_dashboard=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Plain.bind(), route_prefix="/classify", blocking=True)
