"""TorchServe: a custom handler after its docs/custom_service.md; the model is loaded by ONNX Runtime."""

from plain import classify, session


class Handler:
    def initialize(self, context) -> None:  # noqa: ARG002
        self.model = session()

    def handle(self, data, context) -> list[dict[str, object]]:  # noqa: ARG002
        return [classify(self.model, bytes(each.get("data") or each.get("body"))) for each in data]
