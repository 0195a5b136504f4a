"""Occlusion: cover parts of an image, and see which of them the prediction needs. Any model, without its weights."""

import numpy as np

from imgclf import tasks
from imgclf.prediction import Classifier


def occlude(classifier: Classifier, pixels: np.ndarray, classes: list[int], grid: int) -> list[np.ndarray]:
    """How much the log probability of a class, or a number, falls while each part of the image is covered.

    A patch of twice the side of a place moves by one place at a time; a place gets the mean of all patches that cover
    it. The patch has the mean color of the image.

    Args:
        pixels: uint8 (s, s, 3), as the model takes them.
        classes: the indices of the classes, or of the numbers.
        grid: places along each side.

    Returns:
        A map, float32 (grid, grid), for each class.

    Source: Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2.
    """
    side = len(pixels)
    grid = min(grid, side)
    edges = np.linspace(0, side, grid + 1).round().astype(int)
    color = pixels.reshape(-1, 3).mean(axis=0)
    places = [(row, column) for row in range(-1, grid) for column in range(-1, grid)]
    covered = np.repeat(pixels[None].astype(np.float32), len(places) + 1, axis=0)
    for number, (row, column) in enumerate(places):
        rows = slice(edges[max(row, 0)], edges[min(row + 2, grid)])
        columns = slice(edges[max(column, 0)], edges[min(column + 2, grid)])
        covered[number, rows, columns] = color
    found = classifier.probabilities(covered)  # (places and the whole image, classes)
    if tasks.find(classifier.task).ACTIVATION != "linear":
        found = np.log(np.maximum(found, 1e-12))
    falls = found[-1] - found[:-1]
    maps = []
    for index in classes:
        total, count = np.zeros((grid, grid)), np.zeros((grid, grid))
        for (row, column), fall in zip(places, falls[:, index], strict=True):
            near = slice(max(row, 0), row + 2), slice(max(column, 0), column + 2)
            total[near] += fall
            count[near] += 1
        maps.append((total / count).astype(np.float32))
    return maps
