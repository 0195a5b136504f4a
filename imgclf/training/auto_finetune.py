"""Train automatically after the probe: more trainable layers, while they help and time remains.

The last epoch of a stage counts, unless an earlier one was better by more than chance. A stage is kept if at least as
many validation images are correct and their calibrated log loss falls: both must agree, since with few images either
alone is largely chance. MISSES stages in a row that were not kept end the search, unless a time limit was given, which
is there to be used.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from imgclf.data import loading
from imgclf.data.dataset import TRAIN, VALIDATION
from imgclf.errors import RunError
from imgclf.training import checkpoint, descent, features, network, stage_selection
from imgclf.training.history import title
from imgclf.training.images import Images
from imgclf.training.job import Fitted, Job, TimeIsUp
from imgclf.training.progress import OnProgress, Row
from imgclf.training.stage_selection import ACCEPTED, NO_TIME

log = logging.getLogger("imgclf")

MISSES = 2
FEWEST_EPOCHS = 3
"""Two were no better than the probe (docs/benchmarks.md)."""
SHARES = (1 / 3, 2 / 3, 1.0)
"""Shares of the backbone's multiply-adds that the stages after the probe unfreeze."""

Stage = Callable[[str], bool]
"""Called with its name; returns whether there may be time for another."""


@dataclass
class Search:
    """The stages of one job.

    Args:
        best: what is kept so far, where its embeddings are known.
        score: the `stage_selection.score` of the validation images.
        done: the names of the stages that were tried.
        misses: how many stages in a row were not kept.
    """

    job: Job
    best: Fitted | None
    score: tuple[float, float]
    done: list[str] = field(default_factory=list)
    misses: int = 0

    def run(self) -> None:
        """Try the stages."""
        limit = "--time-limit" if self.job.recipe.is_limited else "by default"
        log.info("Time: up to %.0f s for the whole run (%s).", self.job.clock.limit_s, limit)
        self.restore()
        for name, stage in self.stages():
            if name in self.done:
                continue
            if self._is_hopeless(name):
                log.info("%s: skipped, since training a smaller part did not help.", title(name))
                continue
            if self.misses >= MISSES and not self.job.recipe.is_limited:
                log.info("Stopped: %d stages in a row did not help.", MISSES)
                return
            if not stage(name):
                return

    def fitted(self) -> Fitted:
        """Return what was kept."""
        return replace(self.best, recipe=self.job.recipe) if self.best else self.job.fitted()

    @property
    def has_improved(self) -> bool:
        """Whether anything after the probe was kept."""
        return any(row.get("outcome") == ACCEPTED for row in self.job.rows)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """Yield what to try, in order: the image sizes that were given, then the shares."""
        for size in self.job.recipe.sizes[1:]:
            yield f"probe {size} px", partial(self.enlarge, size)
        yield from ((_name(share), partial(self.unfreeze, share)) for share in SHARES)

    def _is_hopeless(self, name: str) -> bool:
        """Whether less than all would be trained where still less did not help: what is missing lies deeper."""
        names = [_name(share) for share in SHARES]
        return name in names[1:-1] and self._has_finetuned() is False

    def _has_finetuned(self) -> bool | None:
        """Whether any stage that trained layers was kept; None if there was none."""
        names = {_name(share) for share in SHARES}
        found = [row["outcome"] == ACCEPTED for row in self.job.rows if row["phase"] in names and "outcome" in row]
        return any(found) if found else None

    def unfreeze(self, share: float, name: str) -> bool:
        """Train a share of the network, and keep it or not."""
        job = self.job
        caches = job.recipe.caches_activations and share < 1 and not job.recipe.mixes
        multiplier = job.recipe.lr_multiplier if share == SHARES[-1] and not self._has_finetuned() else 1.0
        recipe = replace(
            job.recipe,
            lr=job.recipe.lr * multiplier,
            sizes=(job.recipe.image_size,),
            caches_activations=caches,
            unfreeze_from=str(round(share, 2)),
        )
        start_s, epoch_s = self._cost(share, cached=caches)
        left = job.clock.left_s(job.ending_s())
        epochs = max(0, min(recipe.epochs, int((left - start_s) / epoch_s)))
        fewest = min(FEWEST_EPOCHS, recipe.epochs)
        if epochs < fewest:
            _skip(name, f"{fewest} epochs", start_s + fewest * epoch_s, left)
            return False
        if epochs < recipe.epochs:
            log.info("%s: %d of %d epochs, for the time that is left.", title(name), epochs, recipe.epochs)
        before, count, outcome = job.model.get_weights(), len(job.rows), "no epoch was finished"
        try:
            descent.descend(job, name, replace(recipe, epochs=epochs), job.deadline())
        except RunError as error:
            log.warning("%s", error)
        except TimeIsUp:
            outcome = NO_TIME
        tried = job.rows[count:]
        validation = job.images.validation()
        if tried and validation and self._keeps(name, descent.score(job, validation)):
            self.best = None
        else:
            job.model.set_weights(before)
        if tried:
            job.clock.learn(job.clock.drift * epoch_s, float(np.median([row["seconds"] for row in tried])))
        else:
            self._give_up({"phase": name}, outcome)
        self._save()
        return True

    def enlarge(self, size: int, name: str) -> bool:
        """Use the same weights at a larger image size, with a refitted head, and keep it or not."""
        job = self.job
        area = (size / job.model.input_shape[1]) ** 2
        left = job.clock.left_s(job.ending_s(area))
        needed = job.clock.drift * (job.decoding_s + area * job.embedding_s())
        if needed > left:
            _skip(name, "it", needed, left)
            return True  # another stage may be quicker
        try:
            on_progress = job.until(job.deadline(area))
            larger = _at(job, size, on_progress)
            fitted = larger.fit_head(name, on_progress=on_progress)
        except TimeIsUp:
            self._give_up({"phase": name, "image_size": size}, NO_TIME)
        else:
            after = validation_score(fitted)
            if after and self._keeps(name, after, costly=True):
                self.job, self.best = larger, fitted
        self._save()
        return True

    def _keeps(self, name: str, after: tuple[float, float], *, costly: bool = False) -> bool:
        """Whether the stage of the last row is kept."""
        score = self.job.images.task.SCORE
        outcome = stage_selection.judge(self.score, after, costly=costly, task=self.job.images.dataset.task)
        if outcome == ACCEPTED:
            log.info("%s: validation %s %.3f -> %.3f, kept.", title(name), score, self.score[0], after[0])
            self.score, self.misses = after, 0
        else:
            log.info("%s: %s.", title(name), outcome)
            self.misses += 1
        self.done.append(name)
        self.job.rows[-1]["outcome"] = outcome
        self.job.report()
        return outcome == ACCEPTED

    def _give_up(self, row: Row, outcome: str) -> None:
        """Add the row of a stage without an epoch."""
        log.info("%s: %s.", title(row["phase"]), outcome)
        self.job.add(row | {"outcome": outcome})
        self.done.append(row["phase"])
        self.misses += 1

    def _cost(self, share: float, *, cached: bool) -> tuple[float, float]:
        """Seconds that a stage needs before its first epoch, and for each epoch."""
        job = self.job
        job.passes().measure()
        train, validation = (len(job.images.rows(split)) for split in (TRAIN, VALIDATION))
        images = (1 + job.recipe.cached_augmentations) * len(job.images.pixels) if cached else 0
        start_s, epoch_s = job.passes().training_s(
            share, train, validation, images, features.gain(job.model, job.recipe)
        )
        return job.clock.drift * start_s, job.clock.drift * epoch_s

    def _save(self) -> None:
        """Write what the stages so far have led to."""
        facts = {
            "training": "auto",
            "stages": self.done,
            "misses": self.misses,
            "score": self.score,
            "rows": self.job.rows,
            "image_size": self.job.recipe.image_size,
        }
        checkpoint.write(self.job.run.checkpoint, facts, {"model": self.job.model.get_weights()})

    def restore(self) -> None:
        """Resume after the last stage that was finished."""
        job = self.job
        if not job.run.checkpoint.exists():
            return
        facts, arrays = checkpoint.read(job.run.checkpoint, "auto")
        self.done, self.misses, job.rows[:] = facts["stages"], facts["misses"], facts["rows"]
        self.score = (facts["score"][0], facts["score"][1])
        if self.has_improved:
            self.best = None
        if facts["image_size"] != job.recipe.image_size:
            self.job = job = _at(job, facts["image_size"], job.until(math.inf))
        job.model.set_weights(arrays["model"])
        log.info("Resuming after %s.", ", ".join(map(title, self.done)))


def validation_score(fitted: Fitted) -> tuple[float, float] | None:
    """Return the score of the validation images; None without any."""
    rows = fitted.images.rows(VALIDATION)
    task = fitted.images.dataset.task
    return stage_selection.score(fitted.logits[rows], fitted.images.targets[rows], task) if len(rows) else None


def _at(job: Job, size: int, on_progress: OnProgress) -> Job:
    """Return the same job at another image size.

    Raises:
        RunError: if images were removed meanwhile.
        TimeIsUp: if the progress says so.
    """
    dataset, settings = job.images.dataset, job.recipe.settings
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(f"decoding at {size} px", done, len(dataset))

    readable, pixels = loading.decode(
        dataset,
        size,
        settings.decoding,
        cache=settings.cache,
        cache_limit_gb=settings.cache_limit_gb,
        on_progress=advance,
    )
    if len(readable) != len(dataset):
        raise RunError(f"{dataset.root}: {len(dataset) - len(readable)} images can no longer be read.")
    recipe = job.recipe.settle(image_size=size)
    return replace(job, model=network.resized(job.model, recipe), recipe=recipe, images=Images(dataset, pixels))


def _skip(name: str, what: str, needed_s: float, left_s: float) -> None:
    log.info(
        "%s: skipped; %s would take about %.0f s, and %.0f s are left before the model is saved.",
        title(name),
        what,
        needed_s,
        max(0.0, left_s),
    )


def _name(share: float) -> str:
    return f"finetune {share:.0%}"
