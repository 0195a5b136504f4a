"""The estimator that is a Keras classifier: a backbone and a head, trained by one of the methods."""

import math
from typing import TYPE_CHECKING, Self

import numpy as np

from imgclf import environment, storage
from imgclf.models import classifier, sources
from imgclf.runs import Run
from imgclf.settings import TrainConfig
from imgclf.training import devices, features, methods, network, recipe, trackers
from imgclf.training.estimators import Work
from imgclf.training.images import Images
from imgclf.training.job import Fitted, Job
from imgclf.training.progress import OnProgress

if TYPE_CHECKING:
    import keras


class Network:
    """See `estimators.Estimator`."""

    def __init__(self, resolved: recipe.Recipe) -> None:
        self._recipe = resolved
        self.settings, self.image_size, self.name = resolved.settings, resolved.image_size, resolved.backbone
        self.limit_s = resolved.limit_s
        self.shared = resolved.method == "probe"  # its backbone is frozen, and each fold sets the whole head

    @classmethod
    def resolve(cls, settings: TrainConfig, side_px: float = math.inf) -> tuple[Self, list[str]]:
        """See `Estimator`."""
        devices.choose(settings.device)  # before the first graph
        resolved, notes = recipe.resolve(settings, side_px)
        devices.check_batch(resolved.batch_size)
        environment.require_extras(resolved.settings.extras)
        return cls(resolved), notes

    @classmethod
    def of_run(cls, settings: TrainConfig) -> Self:
        """See `Estimator`."""
        devices.choose(settings.device)
        return cls(recipe.from_resolved(settings))

    def check(self, count: int) -> None:
        """See `Estimator`: any number will do."""

    def build(self, classes: int, run: Run | None = None) -> "keras.Model":
        """See `Estimator`."""
        kept = None
        if run and not sources.portable(self._recipe.backbone):
            kept = next((file for file in (run.backbone, run.model) if file.is_file()), None)
        return network.build(self._recipe, classes, kept=kept)

    def keep(self, built: "keras.Model", run: Run) -> None:
        """See `Estimator`."""
        if not sources.portable(self._recipe.backbone):
            with storage.replacing(run.backbone) as new:
                classifier.backbone(built).save(new)

    def vectors(self, built: "keras.Model", images: Images, on_progress: OnProgress | None) -> np.ndarray:
        """See `Estimator`: the embeddings."""
        return features.frozen(built, images.dataset, images.pixels, self._recipe, on_progress=on_progress)[0]

    def fit(self, built: "keras.Model", work: Work) -> Fitted:
        """See `Estimator`."""
        built.get_layer(work.images.task.OUTPUT).set_weights(work.images.output_weights)
        callbacks = trackers.callbacks(work.extended or work.run, self.settings)
        job = Job(built, self._recipe, work.images, work.run, work.clock, work.on_progress, callbacks, work.decoding_s)
        job.announce()
        return methods.more_epochs(job, work.extended) if work.extended else methods.METHODS[self._recipe.method](job)
