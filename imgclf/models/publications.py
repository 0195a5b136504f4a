"""What the papers behind the catalog's networks say of them, without importing Keras."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Publication:
    """A network's paper.

    Args:
        year: of the first publication.
        paper: its address.
        layers: the number of layers with weights, as the paper counts them; None where it does not.
        top5: top-5 accuracy on the ImageNet validation set in percent, single model and single crop, from the source
            of the catalog's `top1`; None where that gives none.
        classes: of the paper's head, for networks without ImageNet weights.
    """

    year: int
    paper: str
    layers: int | None = None
    top5: float | None = None
    classes: int | None = None


def _arxiv(number: str, year: int, **rows: tuple[int | None, float | None]) -> dict[str, Publication]:
    """Return the networks of one paper: name with `_` for `-` -> layers, top-5 accuracy."""
    paper = f"https://arxiv.org/abs/{number}"
    return {name.replace("_", "-"): Publication(year, paper, *facts) for name, facts in rows.items()}


PUBLICATIONS: dict[str, Publication] = {
    "lenet5": Publication(1998, "https://doi.org/10.1109/5.726791", 7, classes=10),
    "alexnet": Publication(
        2012,
        "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks",
        8,
        classes=1000,
    ),
    "googlenet": Publication(2014, "https://arxiv.org/abs/1409.4842", 22, classes=1000),
    **_arxiv("1409.1556", 2014, vgg16=(16, 90.1), vgg19=(19, 90.0)),
    **_arxiv("1512.00567", 2015, inceptionv3=(42, 93.7)),
    **_arxiv("1512.03385", 2015, resnet50=(50, 92.1), resnet101=(101, 92.8), resnet152=(152, 93.1)),
    **_arxiv("1603.05027", 2016, resnet50v2=(50, 93.0), resnet101v2=(101, 93.8), resnet152v2=(152, 94.2)),
    **_arxiv("1602.07261", 2016, inception_resnetv2=(None, 95.3)),
    **_arxiv("1608.06993", 2016, densenet121=(121, 92.3), densenet169=(169, 93.2), densenet201=(201, 93.6)),
    **_arxiv("1610.02357", 2016, xception=(None, 94.5)),
    **_arxiv("1704.04861", 2017, mobilenet=(28, 89.5)),
    **_arxiv("1707.07012", 2017, nasnet_mobile=(None, 91.9), nasnet_large=(None, 96.0)),
    **_arxiv("1801.04381", 2018, mobilenetv2=(None, 90.1)),
    **_arxiv("1905.02244", 2019, mobilenetv3_small=(None, None), mobilenetv3_large=(None, None)),
    **_arxiv(
        "1905.11946",
        2019,
        efficientnet_b0=(None, 93.3),
        efficientnet_b1=(None, 94.4),
        efficientnet_b2=(None, 94.9),
        efficientnet_b3=(None, 95.7),
        efficientnet_b4=(None, 96.4),
        efficientnet_b5=(None, 96.7),
        efficientnet_b6=(None, 96.8),
        efficientnet_b7=(None, 97.0),
    ),
    "efficientnet-lite0": Publication(
        2020, "https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html"
    ),
    **_arxiv(
        "2104.00298",
        2021,
        efficientnetv2_b0=(None, 94.3),
        efficientnetv2_b1=(None, 95.0),
        efficientnetv2_b2=(None, 95.1),
        efficientnetv2_b3=(None, 95.8),
        efficientnetv2_s=(None, 96.7),
        efficientnetv2_m=(None, 97.4),
        efficientnetv2_l=(None, 97.5),
    ),
    **_arxiv(
        "2201.03545",
        2022,
        convnext_tiny=(None, None),
        convnext_small=(None, None),
        convnext_base=(None, None),
        convnext_large=(None, None),
        convnext_xlarge=(None, None),
    ),
}
"""By the names of the catalog."""
