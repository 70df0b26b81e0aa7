"""Reads a dashboard (stdin) into Grafana's own models and prints what they keep of it."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

if __name__ == "__main__":
    # The models of every panel and query that Grafana brings.
    register_default_plugins()
    print(JSONEncoder().encode(Dashboard.from_json(json.load(sys.stdin))))
