"""BentoML's own example of an image service: one API that takes a PIL image; a worker per core, as its docs advise.

docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html (workers), …/iotypes.html (PIL images).
"""

import bentoml
import PIL.Image
from plain import WORKERS, answers, crop_of, session


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Plain:
    def __init__(self) -> None:
        self.model = session()

    @bentoml.api
    def classify(self, image: PIL.Image.Image) -> dict[str, object]:
        return answers(self.model.run(["logits"], {"images": crop_of(image)[None]})[0])[0]
