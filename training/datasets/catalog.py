"""The data sets that Petalpaw knows by name: where they come from, who may use them, what they should be.

Sizes and digests are those that docs/datasets.md names a source for; none was made up or taken from a download here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import ParameterInvalid
from training.datasets.contents import CIFAR_CLASSES, Picture, cifar10, digits, photos


@dataclass(frozen=True)
class Archive:
    """A file as its publisher serves it.

    `size` is in bytes, `sha256` in hexadecimal. `unpacked` is the name of the folder or file that unpacking by hand
    gives; where that is a file, `content_sha256` is its digest, which holds however the file was compressed.
    """

    name: str
    addresses: tuple[str, ...]
    size: int
    sha256: str
    unpacked: str
    content_sha256: str | None = None


@dataclass(frozen=True)
class NamedSet:
    """A data set: `splits` maps each split's folder to its number of pictures, each split has all `classes`.

    `pictures` reads the files of `archives`, in their order, and gives every picture as its path in the set's folder
    and its encoded bytes.
    """

    name: str
    title: str
    origin: str
    licence: str
    splits: dict[str, int]
    classes: tuple[str, ...]
    archives: tuple[Archive, ...]
    pictures: Callable[[Sequence[Path]], Iterator[Picture]]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)

    @property
    def count(self) -> int:
        """Pictures of all splits."""
        return sum(self.splits.values())


def named(name: str) -> NamedSet:
    """The set of that name. Raises ParameterInvalid."""
    if name not in CATALOG:
        raise ParameterInvalid(f"no data set is called {name!r}; known are {', '.join(CATALOG)}")
    return CATALOG[name]


def _mnist(name: str, size: int, sha256: str, content_sha256: str) -> Archive:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
    addresses = tuple(f"{mirror}/{name}.gz" for mirror in mirrors)
    return Archive(f"{name}.gz", addresses, size, sha256, name, content_sha256)


_SETS = (
    NamedSet(
        name="flowers",
        title="flower_photos: five flowers",
        origin="the TensorFlow tutorials",
        licence="CC BY 2.0: free to use when the photographers are credited; LICENSE.txt beside the photos names them",
        splits={"train": 3670},
        classes=("daisy", "dandelion", "roses", "sunflowers", "tulips"),
        archives=(
            Archive(
                "flower_photos.tgz",
                (
                    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
                    "https://download.tensorflow.org/example_images/flower_photos.tgz",
                ),
                228_813_984,
                "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
                "flower_photos",
            ),
        ),
        pictures=photos(
            (r"flower_photos/(daisy|dandelion|roses|sunflowers|tulips)/([^/]+\.jpg)", r"train/\1/\2"),
            (r"flower_photos/(LICENSE\.txt)", r"\1"),
        ),
    ),
    NamedSet(
        name="catdog",
        title="Asirra cats and dogs: cat and dog 1–1000 to train, 4001–4500 to validate",
        origin="Microsoft, from photos of Petfinder.com",
        licence="CDLA-Permissive-2.0 as Microsoft's archive says; its earlier releases and Kaggle's copy are for "
        "research use only, so ask before any other use",
        splits={"train": 2000, "val": 1000},
        classes=("cats", "dogs"),
        archives=(
            Archive(
                "kagglecatsanddogs_5340.zip",
                (
                    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
                    "kagglecatsanddogs_5340.zip",
                ),
                824_887_076,
                "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                "PetImages",
            ),
        ),
        pictures=photos(
            (r"PetImages/Cat/([1-9]\d{0,2}|1000)\.jpg", r"train/cats/cat.\1.jpg"),
            (r"PetImages/Dog/([1-9]\d{0,2}|1000)\.jpg", r"train/dogs/dog.\1.jpg"),
            (r"PetImages/Cat/(4[0-4]\d\d|4500)(?<!4000)\.jpg", r"val/cats/cat.\1.jpg"),
            (r"PetImages/Dog/(4[0-4]\d\d|4500)(?<!4000)\.jpg", r"val/dogs/dog.\1.jpg"),
        ),
    ),
    NamedSet(
        name="hymenoptera",
        title="ants and bees",
        origin="the PyTorch transfer-learning tutorial",
        licence="none is stated; a small part of ImageNet, whose terms are non-commercial research and education",
        splits={"train": 244, "val": 153},
        classes=("ants", "bees"),
        archives=(
            Archive(
                "hymenoptera_data.zip",
                ("https://download.pytorch.org/tutorial/hymenoptera_data.zip",),
                47_286_322,
                "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
                "hymenoptera_data",
            ),
        ),
        pictures=photos((r"hymenoptera_data/(train|val)/(ants|bees)/([^/]+\.jpg)", r"\1/\2/\3")),
    ),
    NamedSet(
        name="mnist",
        title="MNIST: handwritten digits, 28 × 28, greyscale",
        origin="Yann LeCun, Corinna Cortes and Christopher Burges",
        licence="CC BY-SA 3.0, as is commonly stated for it; free to use with credit, copies under the same terms",
        splits={"train": 60_000, "test": 10_000},
        classes=tuple("0123456789"),
        archives=(
            _mnist(
                "train-images-idx3-ubyte",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            _mnist(
                "train-labels-idx1-ubyte",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            _mnist(
                "t10k-images-idx3-ubyte",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            _mnist(
                "t10k-labels-idx1-ubyte",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        pictures=digits,
    ),
    NamedSet(
        name="cifar10",
        title="CIFAR-10: ten classes, 32 × 32",
        origin="Alex Krizhevsky, University of Toronto (the binary version)",
        licence="none is stated; the authors ask to cite their 2009 report, the photos were gathered from the web",
        splits={"train": 50_000, "test": 10_000},
        classes=CIFAR_CLASSES,
        archives=(
            Archive(
                "cifar-10-binary.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                "cifar-10-batches-bin",
            ),
        ),
        pictures=cifar10,
    ),
)

CATALOG: dict[str, NamedSet] = {each.name: each for each in _SETS}
