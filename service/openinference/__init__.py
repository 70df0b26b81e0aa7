"""The Open Inference Protocol v2 under /v2, over HTTP, with Triton's extensions that suit a classifier."""
