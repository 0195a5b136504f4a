"""Facts about every backbone, without importing Keras.

Sizes, parameters, file names, addresses and hashes are those of keras.applications in Keras 3.15; a test compares
each of them with what Keras itself would fetch.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from imgclf.errors import UsageError

Preprocessing = Literal["none", "tf", "torch", "caffe"]

KERAS_IO = "https://keras.io/api/applications/"
KERAS_IO_MOBILENET = "https://keras.io/api/applications/mobilenet/"
KERAS_HUB = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True)
class HubFile:
    """A file of weights: its address, the name Keras saves it under, and its MD5 or SHA-256 where Keras knows one."""

    url: str
    name: str
    hash: str | None


@dataclass(frozen=True)
class ModelFacts:
    """One backbone. None stands for "does not apply": no hub holds files of the networks that imgclf builds itself.

    `application` is the function in keras.applications. `image_size` and `min_image_size` are in pixels.
    `parameters` counts the backbone alone, `parameters_with_top` also ImageNet's 1000 outputs. `top1` is the published
    ImageNet validation accuracy in per cent, at `image_size`, as `source` gives it. `preprocessing` is what has to
    happen to pixels 0-255 before the application: "none" where it does that itself, "tf" scales to -1..1, "torch"
    normalises by ImageNet's mean and deviation, "caffe" subtracts the mean from BGR.
    """

    name: str
    application: str | None
    image_size: int
    min_image_size: int
    parameters: int | None
    parameters_with_top: int | None
    top1: float | None
    source: str | None
    preprocessing: Preprocessing
    without_top: HubFile | None
    with_top: HubFile | None

    @property
    def weights_mb(self) -> float | None:
        """The backbone's pretrained weights as float32, in MB (10^6 bytes)."""
        return None if self.parameters is None or self.parameters_with_top is None else self.parameters * 4 / 1e6


# name, application, stem of the file name, image size, parameters, the same with the top, top-1, hash, hash with top
_Row = tuple[str, str, str, int, int, int, float, str | None, str | None]


def _family(
    folder: str,
    files: tuple[str, str],
    preprocessing: Preprocessing,
    rows: list[_Row],
    *,
    saved_as: tuple[str, str] | None = None,
    min_image_size: int = 32,
    source: str = KERAS_IO,
) -> Iterator[ModelFacts]:
    """The models that share a folder on the hub. `files` are the names without and with the top, {} for the stem."""
    names = saved_as or files
    for name, application, stem, size, parameters, with_top, top1, *hashes in rows:
        without_top_file, with_top_file = (
            HubFile(folder + file.format(stem), saved.format(stem), hash)
            for file, saved, hash in zip(files, names, hashes, strict=True)
        )
        yield ModelFacts(
            name=name,
            application=application,
            image_size=size,
            min_image_size=min_image_size,
            parameters=parameters,
            parameters_with_top=with_top,
            top1=top1,
            source=source,
            preprocessing=preprocessing,
            without_top=without_top_file,
            with_top=with_top_file,
        )


EFFICIENTNET_LITE = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"

DEFAULT = "efficientnet-lite0"
"""The backbone whose ImageNet weights come with imgclf."""

IMAGENET = "imagenet"
"""For prediction, the default backbone with ImageNet's own classes."""

_ALIASES = {"embedded": DEFAULT}


TF_KERNELS = ("{}_weights_tf_dim_ordering_tf_kernels_notop.h5", "{}_weights_tf_dim_ordering_tf_kernels.h5")

# fmt: off
_ALL = (
    ModelFacts(DEFAULT, None, 224, 16, 3_413_024, 4_694_024, 75.1, EFFICIENTNET_LITE, "none", None, None),
    ModelFacts("small-cnn", None, 96, 16, 661_896, None, None, None, "none", None, None),
    *_family(
        KERAS_HUB + "mobilenet/",
        ("mobilenet_1_0_224_tf_no_top.h5", "mobilenet_1_0_224_tf.h5"),
        "tf",
        [
            ("mobilenet", "MobileNet", "", 224, 3_228_864, 4_253_864, 70.4,
             None, None),
        ],
    ),
    *_family(
        KERAS_HUB + "mobilenet_v2/",
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
         "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
        "tf",
        [
            ("mobilenetv2", "MobileNetV2", "", 224, 2_257_984, 3_538_984, 71.3,
             None, None),
        ],
    ),
    *_family(
        KERAS_HUB + "mobilenet_v3/",
        ("weights_mobilenet_v3_{}_224_1.0_float_no_top_v2.h5", "weights_mobilenet_v3_{}_224_1.0_float.h5"),
        "none",
        [
            ("mobilenetv3-small", "MobileNetV3Small", "small", 224, 939_120, 2_554_968, 68.1,
             "d3e8ec802a04aa4fc771ee12a9a9b836", "8768d4c2e7dee89b9d02b2d03d65d862"),
            ("mobilenetv3-large", "MobileNetV3Large", "large", 224, 2_996_352, 5_507_432, 75.6,
             "07fb09a5933dd0c8eaafa16978110389", "59e551e166be033d707958cf9e29a6a7"),
        ],
        source=KERAS_IO_MOBILENET,
    ),
    *_family(
        KERAS_HUB + "nasnet/",
        ("NASNet-{}-no-top.h5", "NASNet-{}.h5"),
        "tf",
        [
            ("nasnet-mobile", "NASNetMobile", "mobile", 224, 4_269_716, 5_326_716, 74.4,
             "1ed92395b5b598bdda52abe5c0dbfd63", "020fb642bf7360b370c678b08e0adf61"),
            ("nasnet-large", "NASNetLarge", "large", 331, 84_916_818, 88_949_818, 82.5,
             "d81d89dc07e6e56530c4e77faddd61b5", "11577c9a518f0070763c2b964a382f17"),
        ],
        saved_as=("nasnet_{}_no_top.h5", "nasnet_{}.h5"),
    ),
    *_family(
        KERAS_HUB + "efficientnet_v2/",
        ("{}_notop.h5", "{}.h5"),
        "none",
        [
            ("efficientnetv2-b0", "EfficientNetV2B0", "efficientnetv2-b0", 224, 5_919_312, 7_200_312, 78.7,
             "893217f2bb855e2983157299931e43ff", "21ecbf6da12460d5c40bb2f29ceb2188"),
            ("efficientnetv2-b1", "EfficientNetV2B1", "efficientnetv2-b1", 240, 6_931_124, 8_212_124, 79.8,
             "0e80663031ca32d657f9caa404b6ec37", "069f0534ff22adf035c89e2d9547a9dc"),
            ("efficientnetv2-b2", "EfficientNetV2B2", "efficientnetv2-b2", 260, 8_769_374, 10_178_374, 80.5,
             "1dfe2e7a5d45b6632553a8961ea609eb", "424e49f28180edbde1e94797771950a7"),
            ("efficientnetv2-b3", "EfficientNetV2B3", "efficientnetv2-b3", 300, 12_930_622, 14_467_622, 82.0,
             "f6abf7b5849ac99a89b50dd3fd532856", "1f1fc43bd98a6e4fd8fdfd551e02c7a0"),
            ("efficientnetv2-s", "EfficientNetV2S", "efficientnetv2-s", 384, 20_331_360, 21_612_360, 83.9,
             "af0682fb74e8c54910f2d4393339c070", "e1d88a8495beba45748fedd0cecbe016"),
            ("efficientnetv2-m", "EfficientNetV2M", "efficientnetv2-m", 480, 53_150_388, 54_431_388, 85.3,
             "1b8dc055df72dde80d614482840fe342", "a3bf6aa3276309f4fc6a34aa114c95cd"),
            ("efficientnetv2-l", "EfficientNetV2L", "efficientnetv2-l", 480, 117_746_848, 119_027_848, 85.7,
             "b0b66b5c863aef5b46e8608fe1711615", "27e6d408b53c7ebc868fefa357689935"),
        ],
    ),
    *_family(
        "https://storage.googleapis.com/keras-applications/",
        ("{}_notop.h5", "{}.h5"),
        "none",
        [
            ("efficientnet-b0", "EfficientNetB0", "efficientnetb0", 224, 4_049_571, 5_330_571, 77.1,
             "50bc09e76180e00e4465e1a485ddc09d", "902e53a9f72be733fc0bcb005b3ebbac"),
            ("efficientnet-b1", "EfficientNetB1", "efficientnetb1", 240, 6_575_239, 7_856_239, 79.1,
             "74c4e6b3e1f6a1eea24c589628592432", "1d254153d4ab51201f1646940f018540"),
            ("efficientnet-b2", "EfficientNetB2", "efficientnetb2", 260, 7_768_569, 9_177_569, 80.1,
             "111f8e2ac8aa800a7a99e3239f7bfb39", "b15cce36ff4dcbd00b6dd88e7857a6ad"),
            ("efficientnet-b3", "EfficientNetB3", "efficientnetb3", 300, 10_783_535, 12_320_535, 81.6,
             "af6d107764bb5b1abb91932881670226", "ffd1fdc53d0ce67064dc6a9c7960ede0"),
            ("efficientnet-b4", "EfficientNetB4", "efficientnetb4", 380, 17_673_823, 19_466_823, 82.9,
             "ebc24e6d6c33eaebbd558eafbeedf1ba", "18c95ad55216b8f92d7e70b3a046e2fc"),
            ("efficientnet-b5", "EfficientNetB5", "efficientnetb5", 456, 28_513_527, 30_562_527, 83.6,
             "38879255a25d3c92d5e44e04ae6cec6f", "ace28f2a6363774853a83a0b21b9421a"),
            ("efficientnet-b6", "EfficientNetB6", "efficientnetb6", 528, 40_960_143, 43_265_143, 84.0,
             "9ecce42647a20130c1f39a5d4cb75743", "165f6e37dce68623721b423839de8be5"),
            ("efficientnet-b7", "EfficientNetB7", "efficientnetb7", 600, 64_097_687, 66_658_687, 84.3,
             "cbcfe4450ddf6f3ad90b1b398090fe4a", "8c03f828fec3ef71311cd463b6759d99"),
        ],
    ),
    *_family(
        KERAS_HUB + "resnet/",
        TF_KERNELS,
        "caffe",
        [
            ("resnet50", "ResNet50", "resnet50", 224, 23_587_712, 25_636_712, 74.9,
             "4d473c1dd8becc155b73f8504c6f6626", "2cb95161c43110f7111970584f804107"),
            ("resnet101", "ResNet101", "resnet101", 224, 42_658_176, 44_707_176, 76.4,
             "88cf7a10940856eca736dc7b7e228a21", "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
            ("resnet152", "ResNet152", "resnet152", 224, 58_370_944, 60_419_944, 76.6,
             "ee4c566cf9a93f14d82f913c2dc6dd0c", "100835be76be38e30d865e96f2aaae62"),
        ],
    ),
    *_family(
        KERAS_HUB + "resnet/",
        TF_KERNELS,
        "tf",
        [
            ("resnet50v2", "ResNet50V2", "resnet50v2", 224, 23_564_800, 25_613_800, 76.0,
             "fac2f116257151a9d068a22e544a4917", "3ef43a0b657b3be2300d5770ece849e0"),
            ("resnet101v2", "ResNet101V2", "resnet101v2", 224, 42_626_560, 44_675_560, 77.2,
             "c0ed64b8031c3730f411d2eb4eea35b5", "6343647c601c52e1368623803854d971"),
            ("resnet152v2", "ResNet152V2", "resnet152v2", 224, 58_331_648, 60_380_648, 78.0,
             "ed17cf2e0169df9d443503ef94b23b33", "a49b44d1979771252814e80f8ec446f9"),
        ],
    ),
    *_family(
        KERAS_HUB + "densenet/",
        TF_KERNELS,
        "torch",
        [
            ("densenet121", "DenseNet121", "densenet121", 224, 7_037_504, 8_062_504, 75.0,
             "30ee3e1110167f948a6b9946edeeb738", "9d60b8095a5708f2dcce2bca79d332c7"),
            ("densenet169", "DenseNet169", "densenet169", 224, 12_642_880, 14_307_880, 76.2,
             "b8c4d4c20dd625c148057b9ff1c1176b", "d699b8f76981ab1b30698df4c175e90b"),
            ("densenet201", "DenseNet201", "densenet201", 224, 18_321_984, 20_242_984, 77.3,
             "c13680b51ded0fb44dff2d8f86ac8bb1", "1ceb130c1ea1b78c3bf6114dbdfd8807"),
        ],
    ),
    *_family(
        KERAS_HUB + "inception_v3/",
        TF_KERNELS,
        "tf",
        [
            ("inceptionv3", "InceptionV3", "inception_v3", 299, 21_802_784, 23_851_784, 77.9,
             "bcbd6486424b2319ff4ef7d526e38f63", "9a0d58056eeedaa3f26cb7ebd46da564"),
        ],
        min_image_size=75,
    ),
    *_family(
        KERAS_HUB + "inception_resnet_v2/",
        TF_KERNELS,
        "tf",
        [
            ("inception-resnetv2", "InceptionResNetV2", "inception_resnet_v2", 299, 54_336_736, 55_873_736, 80.3,
             "d19885ff4a710c122648d3b5c3b684e4", "e693bd0210a403b3192acc6073ad2e96"),
        ],
        min_image_size=75,
    ),
    *_family(
        KERAS_HUB + "xception/",
        TF_KERNELS,
        "tf",
        [
            ("xception", "Xception", "xception", 299, 20_861_480, 22_910_480, 79.0,
             "b0042744bf5b25fce3cb969f33bebb97", "0a58e3b7378bc2990ea3b43d5981f1f6"),
        ],
        min_image_size=71,
    ),
    *_family(
        KERAS_HUB + "vgg16/",
        TF_KERNELS,
        "caffe",
        [
            ("vgg16", "VGG16", "vgg16", 224, 14_714_688, 138_357_544, 71.3,
             "6d6bbae143d832006294945121d1f1fc", "64373286793e3c8b2b4e3219cbf3544b"),
        ],
    ),
    *_family(
        KERAS_HUB + "vgg19/",
        TF_KERNELS,
        "caffe",
        [
            ("vgg19", "VGG19", "vgg19", 224, 20_024_384, 143_667_240, 71.3,
             "253f8cb515780f3b799900260a226db6", "cbe5617147190e668d6c5d5026f83318"),
        ],
    ),
    *_family(
        KERAS_HUB + "convnext/",
        ("{}_notop.h5", "{}.h5"),
        "none",
        [
            ("convnext-tiny", "ConvNeXtTiny", "convnext_tiny", 224, 27_820_128, 28_589_128, 81.3,
             "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
             "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff"),
            ("convnext-small", "ConvNeXtSmall", "convnext_small", 224, 49_454_688, 50_223_688, 82.3,
             "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
             "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c"),
            ("convnext-base", "ConvNeXtBase", "convnext_base", 224, 87_566_464, 88_591_464, 85.3,
             "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
             "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6"),
            ("convnext-large", "ConvNeXtLarge", "convnext_large", 224, 196_230_336, 197_767_336, 86.3,
             "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
             "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6"),
            ("convnext-xlarge", "ConvNeXtXLarge", "convnext_xlarge", 224, 348_147_968, 350_196_968, 86.7,
             "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
             "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee"),
        ],
    ),
)
# fmt: on

MODELS: dict[str, ModelFacts] = {facts.name: facts for facts in _ALL}


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def get(name: str) -> ModelFacts | None:
    """The facts about a model, as `find` knows it; None where there is none."""
    names = {_key(known): known for known in MODELS} | _ALIASES
    return MODELS.get(names.get(_key(name), ""))


def find(name: str) -> ModelFacts:
    """The facts about a model; case, dashes and underscores do not matter (`MobileNet-v2` is `mobilenetv2`).

    Raises:
        UsageError: if there is no such model, naming the nearest ones.
    """
    names = {_key(known): known for known in MODELS} | _ALIASES
    if _key(name) == IMAGENET:
        raise UsageError(
            f"{IMAGENET} is a classifier for imgclf predict; its backbone, with the same weights, is {DEFAULT}."
        )
    if _key(name) in names:
        return MODELS[names[_key(name)]]
    near = [names[key] for key in difflib.get_close_matches(_key(name), names, n=3)]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"expected the name of a model, found {name!r}. {hint}imgclf models lists all {len(MODELS)}.")
