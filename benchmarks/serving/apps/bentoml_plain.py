"""BentoML's own example of an image service: one API that takes a PIL image; a worker per core, as its docs advise."""

import bentoml
import PIL.Image
from plain import answers, crop_of, session


@bentoml.service(workers=2, traffic={"timeout": 60})
class Plain:
    def __init__(self) -> None:
        self.model = session()

    @bentoml.api
    def classify(self, image: PIL.Image.Image) -> dict[str, object]:
        return answers(self.model.run(["logits"], {"images": crop_of(image)[None]})[0])[0]
