"""MLServer: a custom runtime after its documentation; base64 pictures as BYTES of the V2 protocol."""

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from plain import classify, session


class Plain(MLModel):
    async def load(self) -> bool:
        self.model = session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pictures = Base64Codec.decode_input(payload.inputs[0])
        labels = [str(classify(self.model, picture)["label"]) for picture in pictures]
        outputs = [StringCodec.encode_output("label", labels)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
