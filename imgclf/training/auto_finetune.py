"""Train automatically: the probe first, then larger images and more trainable layers while they help.

Of many images all layers move at once.

Of a stage its last epoch counts, unless an earlier one was better by more than chance. A stage is kept if it gets at
least as many validation images right and their calibrated log loss falls: both must agree, since with few images either
alone is largely chance. After MISSES stages in a row that were not kept it is enough, unless a time limit was given,
which is there to be used.
"""

import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imgclf.data import loading
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from imgclf.errors import RunError
from imgclf.evaluation import plots
from imgclf.models import classifier, graph
from imgclf.runs import write_atomic
from imgclf.settings import TrainConfig
from imgclf.training import activations, devices, features, finetune, loop, lr_finder, probe, recipe
from imgclf.training.activations import Activations
from imgclf.training.loop import OnProgress, Part, Plan
from imgclf.training.stage_selection import ACCEPTED, NO_TIME, judge, judged
from imgclf.training.time_budget import Clock

log = logging.getLogger("imgclf")

MISSES = 2
FEWEST_EPOCHS = 3
SHARES = (1 / 3, 2 / 3, 1.0)
"""Of the backbone's multiply-adds: what the stages after the probe set free."""

LEARNING_RATE = 1e-4
"""Of the stages in which layers move, unless one is given."""

BOLD = 10.0
"""How many times as high it is where all layers move before, or because, the upper ones alone did not help: to make
other features of them in a few epochs takes large steps."""

MANY = 1000
"""Training images from which all layers move first: so many can shape them, and time may not last for more."""

TRACING = 4.0
"""How many times as long as that of a forward pass the tracing of a training step takes."""

OVERHEAD = 1.2

DEFAULT_LIMIT_S = 120.0
"""For `--method auto` without a time limit: no stage begins that would end later, but everything is exported."""


class _TimeIsUp(Exception):
    """A stage has no more time."""


@dataclass(frozen=True)
class Images:
    """The decoded images and where each side of the split stands among them."""

    dataset: Dataset
    pixels: loading.Pixels  # uint8 (n, s, s, 3)

    def rows(self, split: str) -> np.ndarray:
        """int (m,): where the samples of one side stand."""
        return np.array([i for i, sample in enumerate(self.dataset.samples) if sample.split == split], int)

    def part(self, split: str, cached: Activations | None = None) -> Part:
        """One side, as pixels, or as what a frozen lower part made of them."""
        rows = self.rows(split)
        labels = self.dataset.labels[rows]
        if cached is None:
            return Part(self.pixels.take(rows), labels)
        own = cached.take(rows)
        return Part(own, labels, own.draw)

    def validation(self, cached: Activations | None = None) -> Part | None:
        """The validation part; None where there is none."""
        return self.part(VALIDATION, cached) if len(self.rows(VALIDATION)) else None


@dataclass
class Training:
    """One classifier on its way, and the story of it.

    Args:
        model: in float32; it holds what was best so far.
        report: called with all rows of `history.csv` whenever there are more.
        checkpoint: the file from which an interrupted training goes on.
        callbacks: of Keras.
    """

    model: keras.Model
    config: TrainConfig
    images: Images
    clock: Clock
    report: Callable[[list[dict[str, Any]]], None]
    checkpoint: Path
    on_progress: OnProgress | None = None
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    rows: list[dict[str, Any]] = field(default_factory=list)
    score: tuple[float, float] | None = None  # `judged` of the validation part
    done: list[str] = field(default_factory=list)
    misses: int = 0
    may_halve: bool = False  # the batch, where the memory does not hold it
    decoding_s: float = 0.0  # what it took to decode the images
    _timed: tuple[keras.Model, float, float] | None = None  # seconds of tracing this network, and for an image in it

    def probe(self) -> np.ndarray:
        """Fit the head. All images go through the backbone in one stream, those of the test part too, and once.

        Returns:
            The probabilities for the test part, float32 (m, classes).
        """
        row, logits = self._fit_head("probe", self.on_progress)
        probabilities = probe.softmax(logits[self.images.rows(TEST)])
        self.score = self._score(logits)
        self.rows.append(row)
        self.report(self.rows)
        return probabilities

    def _fit_head(self, phase: str, on_progress: OnProgress | None) -> tuple[dict[str, Any], np.ndarray]:
        """The line of the story, and the logits of all images, float (n, classes)."""
        started = time.monotonic()
        config, images = self.config, self.images
        finetune.freeze(self.model)
        embeddings = features.frozen(
            self.model,
            images.dataset,
            images.pixels,
            config,
            views=(config.cached_augmentations or 0) if config.method == "probe" else 0,
            on_progress=on_progress,
        )
        labels, at = images.dataset.labels, {split: images.rows(split) for split in (TRAIN, VALIDATION, TEST)}
        kernel, bias = probe.fit(
            embeddings[:, at[TRAIN]],
            labels[at[TRAIN]],
            classes=self.model.output_shape[-1],
            seed=config.seed,
            balanced=config.balance != "none",
        )
        probe.place(self.model, kernel, bias)
        logits = embeddings[0] @ kernel + bias
        row: dict[str, Any] = {"phase": phase, "epoch": 1, "image_size": config.image_size}
        row["loss"], row["accuracy"] = loop.loss_and_accuracy(logits[at[TRAIN]], labels[at[TRAIN]])
        text = f"accuracy {row['accuracy']:.4f}"
        if len(at[VALIDATION]):
            row["val_loss"], row["val_accuracy"] = loop.loss_and_accuracy(
                logits[at[VALIDATION]], labels[at[VALIDATION]]
            )
            text += f"  validation {row['val_accuracy']:.4f}"
        row["seconds"] = time.monotonic() - started
        log.info("%s  %s  %.1f s", phase, text, row["seconds"])
        return row, logits

    def _score(self, logits: np.ndarray) -> tuple[float, float] | None:
        """What stages are judged by: `judged` on the validation part, by the logits of all images; None without one."""
        rows = self.images.rows(VALIDATION)
        return judged(logits[rows], self.images.dataset.labels[rows]) if len(rows) else None

    def descend(self, phase: str, request: str | None, config: TrainConfig, deadline: float) -> None:
        """Move the upper layers, or all of them, and leave the model with the best weights on validation."""
        moving = recipe.for_steps(self.model, config)
        trained, train, validation = moving, self.images.part(TRAIN), self.images.validation()
        groups: tuple[tuple[str, ...], ...] = ()
        if config.method in ("finetune", "auto"):
            cut = self._unfreeze(moving, request, config)
            groups = graph.blocks(self.model, cut) if cut else ()
            kept = self._activations(moving, cut, config, deadline)
            if kept is not None and cut is not None:
                trained = graph.upper(moving, cut)
                train, validation = self.images.part(TRAIN, kept), self.images.validation(kept)
        self._fit(trained, train, validation, config, groups, phase, deadline)
        self.model.set_weights(moving.get_weights())

    def _fit(
        self,
        trained: keras.Model,
        train: Part,
        validation: Part | None,
        config: TrainConfig,
        groups: tuple[tuple[str, ...], ...],
        phase: str,
        deadline: float,
    ) -> None:
        rows, weights = list(self.rows), trained.get_weights()

        def on_epoch(epochs: list[dict[str, Any]]) -> None:
            self.rows[:] = [*rows, *epochs]
            self.report(self.rows)

        while True:
            try:
                loop.fit(
                    trained,
                    train,
                    validation,
                    plan(config, groups),
                    phase=phase,
                    checkpoint=self.checkpoint if config.method != "auto" else None,
                    on_progress=self.on_progress,
                    on_epoch=on_epoch,
                    deadline=deadline,
                    callbacks=self.callbacks,
                    careful=config.method == "auto",
                )
                return
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                assert isinstance(config.batch_size, int)
                half = config.batch_size // 2
                if not self.may_halve or not half:
                    advice = f"--batch-size {half}, --batch-size auto" if half else "a smaller --image-size"
                    raise RunError(
                        f"{phase}: the memory does not hold {config.batch_size} images at {config.image_size} px. "
                        f"Try {advice} or a smaller --backbone."
                    ) from None
                log.info("%s: the memory does not hold a batch of %d; %d are tried", phase, config.batch_size, half)
            config = replace(config, batch_size=half)
            self.config = replace(self.config, batch_size=half)
            trained.set_weights(weights)

    def extend(self, phase: str, request: str | None, config: TrainConfig, deadline: float) -> None:
        """More epochs, kept if they are better on validation, or if there is none to ask."""
        before = self.model.get_weights()
        validation = self.images.validation()
        known = [self._validate(validation)] if validation else []
        count = len(self.rows)
        self.descend(phase, request, config, deadline)
        for number, row in enumerate(self.rows[count:]):
            row["epoch"] = 1 + number + sum(earlier["phase"] == phase for earlier in self.rows[:count])
        self.report(self.rows)
        if validation and (judged := judge(known[0], self._validate(validation))) != ACCEPTED:
            log.info("%s: %s, so the earlier weights stay", phase, judged)
            self.model.set_weights(before)

    def _validate(self, validation: Part) -> tuple[float, float]:
        logits = classifier.logits(self.model)
        logits.compile(jit_compile=devices.jit_compile())
        outputs = loop.predict(logits, validation.pixels, loop.batch_size(self.config))
        return judged(outputs, validation.labels)

    def find_rate(self, picture: Path) -> None:
        """Settle `--lr auto` by a range test, drawn as `picture`."""
        config = replace(self.config, lr=1.0, epochs=self.config.epochs or 1)
        if config.method == "auto":  # whose sizes are stages
            config = replace(config, image_sizes=None)
        moving = recipe.for_steps(self.model, config)
        if config.method in ("finetune", "auto"):
            self._unfreeze(moving, config.unfreeze_from, config)
        curve = lr_finder.sweep(moving, self.images.part(TRAIN), plan(config))
        write_atomic(picture, plots.learning_rates(curve.rates, curve.losses, curve.chosen))
        log.info(
            "learning rate %.2g, a tenth of the highest without a rising loss in the range test; see %s",
            curve.chosen,
            picture,
        )
        self.config = replace(self.config, lr=curve.chosen)

    def _unfreeze(self, moving: keras.Model, request: str | None, config: TrainConfig) -> graph.Cut | None:
        """Free layers of what moves. The share of the arithmetic is told at one size, and `moving` may take any."""
        cut = finetune.unfreeze(self.model, request, batch_norm=config.batch_norm)
        for layer in classifier.backbone_layers(self.model):
            moving.get_layer(layer.name).trainable = layer.trainable
        return cut

    def _activations(
        self, moving: keras.Model, cut: graph.Cut | None, config: TrainConfig, deadline: float
    ) -> Activations | None:
        """What passes the cut, kept; None where every epoch must see the pixels anew."""
        if (
            cut is None
            or config.size_steps
            or _mixes(config)
            or (config.cached_augmentations is None and config.augment != "none")
        ):
            return None
        on_progress = self._until(deadline)
        kept = activations.cached(moving, cut, self.images.dataset, self.images.pixels, config, on_progress=on_progress)
        if isinstance(kept, str):
            log.info("the full path is taken: activations at %s are not kept (%s)", cut.layer, kept)
            return None
        log.info("activations at %s are kept; an epoch is up to %.1f times as fast", cut.layer, cut.ideal_gain)
        return kept

    def improve(self) -> None:
        """Go on from the probe at larger sizes and with larger and larger parts, while it helps and time remains."""
        if self.score is None:
            log.info("there is no validation part to say what helps, so the probe is the answer")
            return
        limit = "--time-limit" if self.config.time_limit else "by default"
        log.info("time: up to %.0f s for the whole run (%s)", self.clock.limit_s, limit)
        self._restore()
        for name, stage in self._stages():
            if name in self.done:
                continue
            if self._is_hopeless(name):
                log.info("%s: left out, since a smaller part did not help", name)
                continue
            if self.misses >= MISSES and not self.config.time_limit:
                log.info("%d stages in a row did not help, so it is enough", MISSES)
                return
            if not stage(name):
                return

    def _stages(self) -> Iterator[tuple[str, Callable[[str], bool]]]:
        """What to try, in order: of many images all layers first, if time allows at least half of the epochs."""
        shares: tuple[float, ...] = SHARES
        if SHARES and len(self.images.rows(TRAIN)) >= MANY:
            assert self.config.epochs is not None
            start_s, epoch_s = self._cost(SHARES[-1], cached=False)
            if start_s + self.config.epochs / 2 * epoch_s < self.clock.left_s(self.ending_s()):
                yield _name(SHARES[-1]), partial(self._widen, SHARES[-1])
                shares = SHARES[:-1]
        if not self._has_moved():  # else a refitted head would fit what the layers know by heart
            for size in self.config.size_steps[1:]:
                yield f"probe {size} px", partial(self._enlarge, size)
        yield from ((_name(share), partial(self._widen, share)) for share in shares)

    def _is_hopeless(self, name: str) -> bool:
        """Whether less than all would move where still less did not help: what the features lack lies deeper."""
        names = [_name(share) for share in SHARES]
        return name in names[1:-1] and self._has_moved() is False

    def _has_moved(self) -> bool | None:
        """Whether any stage in which layers moved was kept; None if there was none."""
        names = {_name(share) for share in SHARES}
        found = [row["outcome"] == ACCEPTED for row in self.rows if row["phase"] in names and "outcome" in row]
        return any(found) if found else None

    @property
    def has_improved(self) -> bool:
        """Whether anything after the probe was kept."""
        return any(row.get("outcome") == ACCEPTED for row in self.rows)

    def _widen(self, share: float, name: str) -> bool:
        """One stage in which a larger part of the network moves, kept or not.

        Returns:
            Whether there may be time for another.
        """
        views = self.config.cached_augmentations if share < 1 and not _mixes(self.config) else None
        wanted = replace(self.config, cached_augmentations=views, image_sizes=None)
        if wanted.lr is None:
            is_bold = share == SHARES[-1] and not self._has_moved()
            wanted = replace(wanted, lr=LEARNING_RATE * (BOLD if is_bold else 1.0))
        start_s, epoch_s = self._cost(share, cached=views is not None)
        left = self.clock.left_s(self.ending_s())
        assert wanted.epochs is not None
        epochs = max(0, min(wanted.epochs, int((left - start_s) / epoch_s)))
        fewest = min(FEWEST_EPOCHS, wanted.epochs)
        if epochs < fewest:
            self._leave_out(name, f"{fewest} epochs", start_s + fewest * epoch_s, left)
            return False
        if epochs < wanted.epochs:
            log.info("%s: %d of %d epochs, for the time that is left", name, epochs, wanted.epochs)
        before = self.model.get_weights()
        count = len(self.rows)
        outcome = "no epoch was finished"
        try:
            self.descend(
                name, str(round(share, 2)), replace(wanted, epochs=epochs), self.clock.deadline(self.ending_s())
            )
        except RunError as error:
            log.warning("%s", error)
        except _TimeIsUp:
            outcome = NO_TIME
        tried = self.rows[count:]
        validation = self.images.validation()
        assert validation
        accepted = bool(tried) and self._judge(name, self._validate(validation))
        if tried:
            self.clock.learn(self.clock.drift * epoch_s, float(np.median([row["seconds"] for row in tried])))
        else:
            self._conclude({"phase": name}, outcome)
        if not accepted:
            self.model.set_weights(before)
        self._save()
        return True

    def _enlarge(self, size: int, name: str) -> bool:
        """The same weights at a larger size, with a refitted head; kept or not."""
        area = (size / self.model.input_shape[1]) ** 2
        ending_s = self.ending_s(area)
        needed = self.clock.drift * (self.decoding_s + area * self.passes_s())
        if needed > self.clock.left_s(ending_s):
            self._leave_out(name, "it", needed, self.clock.left_s(ending_s))
            return True  # another stage may be quicker
        try:
            larger = self._at(size, self._until(self.clock.deadline(ending_s)))
            row, logits = larger._fit_head(name, self._until(self.clock.deadline(ending_s)))
        except _TimeIsUp:
            self._conclude({"phase": name, "image_size": size}, NO_TIME)
        else:
            self.rows.append(row)
            after = larger._score(logits)
            assert after
            if self._judge(name, after, costly=True):
                self.model, self.config, self.images = larger.model, larger.config, larger.images
                self._timed = None
        self._save()
        return True

    def _judge(self, name: str, after: tuple[float, float], *, costly: bool = False) -> bool:
        """Whether the stage that ends the story now is kept."""
        assert self.score is not None
        outcome = judge(self.score, after, costly=costly)
        if outcome == ACCEPTED:
            self.score, self.misses = after, 0
        else:
            self.misses += 1
        self.done.append(name)
        self.rows[-1]["outcome"] = outcome
        log.info("%s: %s", name, outcome)
        self.report(self.rows)
        return outcome == ACCEPTED

    def _conclude(self, row: dict[str, Any], outcome: str) -> None:
        """The line of a stage that came to nothing."""
        self.rows.append(row | {"outcome": outcome})
        self.done.append(row["phase"])
        self.misses += 1
        log.info("%s: %s", row["phase"], outcome)
        self.report(self.rows)

    def _leave_out(self, name: str, what: str, needed_s: float, left_s: float) -> None:
        log.info(
            "%s: left out: %s would take about %.0f s, and %.0f s are left before the model is saved",
            name,
            what,
            needed_s,
            max(0.0, left_s),
        )

    def _at(self, size: int, on_progress: OnProgress) -> "Training":
        """The same classifier and images at another size.

        Raises:
            RunError: if images are gone since.
        """
        config, dataset = replace(self.config, image_size=size), self.images.dataset
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            on_progress(f"decoding at {size} px", done, len(dataset))

        readable, pixels = loading.decode(
            dataset,
            size,
            config.decoding,
            cache=config.cache,
            cache_limit_gb=config.cache_limit_gb,
            on_progress=advance,
        )
        if len(readable) != len(dataset):
            raise RunError(f"{dataset.root}: {len(dataset) - len(readable)} images cannot be read any more.")
        plain = replace(config, weights="none", image_sizes=None)
        model = recipe.build(plain, self.model.output_shape[-1])
        model.set_weights(self.model.get_weights())
        return replace(self, model=model, config=config, images=Images(dataset, pixels))

    def _until(self, deadline: float) -> OnProgress:
        """Progress that ends what tells it when time is up."""

        def on_progress(phase: str, done: int, total: int) -> None:
            if time.monotonic() > deadline:
                raise _TimeIsUp
            if self.on_progress:
                self.on_progress(phase, done, total)

        return on_progress

    def ending_s(self, area: float = 1.0) -> float:
        """What is kept back of a time limit for the end; `area` of the images in relation to those of now."""
        if self.clock.limit_s == math.inf:
            return 0.0
        formats = len(self.config.export_formats)
        return self.clock.ending_s(formats, len(self.model.layers), area * self.passes_s())

    def passes_s(self) -> float:
        """What answering for the test part, and features of all images for the calibration, take."""
        tracing, forward = self._timing()
        return 2 * tracing + OVERHEAD * forward * (len(self.images.pixels) + len(self.images.rows(TEST)))

    def _timing(self, *, again: bool = False) -> tuple[float, float]:
        """Seconds for tracing the forward pass, and for an image in it: measured, and when asked, `again`."""
        if self._timed and not again:
            return self._timed[1:]
        size = loop.batch_size(self.config)
        batch = self.images.pixels[:size]
        times = []
        network = self._timed[0] if self._timed else keras.Model(self.model.input, self.model.output)
        if not self._timed:
            network.compile(jit_compile=devices.jit_compile())
        for _ in range(2 if self._timed else 3):
            started = time.monotonic()
            loop.predict(network, batch, size)
            times.append(time.monotonic() - started)
        forward = min(times[-2:]) / size  # a part of a batch is filled up
        tracing = self._timed[1] if self._timed else max(0.0, times[0] - forward * size)
        self._timed = (network, tracing, forward)
        return tracing, forward

    def _cost(self, share: float, *, cached: bool) -> tuple[float, float]:
        """Seconds that a stage needs before its first epoch, and for each epoch, from timing the forward pass."""
        tracing, forward = self._timing(again=True)
        drift, forward = self.clock.drift, OVERHEAD * forward
        count, all_images = len(self.images.rows(TRAIN)), len(self.images.pixels)
        start = TRACING * tracing
        if not cached:
            return drift * start, drift * forward * (count * (1 + 2 * share) + len(self.images.rows(VALIDATION)))
        views = 1 + (self.config.cached_augmentations or 0)
        start += tracing + views * all_images * forward * (1 - share)
        return drift * start, drift * forward * share * (3 * count + len(self.images.rows(VALIDATION)))

    def _save(self) -> None:
        """Keep what the stages so far have come to."""
        meta = {
            "stages": self.done,
            "misses": self.misses,
            "score": self.score,
            "rows": self.rows,
            "image_size": self.config.image_size,
        }
        arrays = {str(i): array for i, array in enumerate(self.model.get_weights())}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
        write_atomic(self.checkpoint, file.getvalue())

    def _restore(self) -> None:
        """Go on after the last stage that was finished."""
        if not self.checkpoint.exists():
            return
        try:
            with np.load(io.BytesIO(self.checkpoint.read_bytes()), allow_pickle=False) as state:
                meta = json.loads(state["meta"].tobytes())
                weights = [state[str(i)] for i in range(len(self.model.weights))]
                self.done, self.misses, self.rows[:] = meta["stages"], meta["misses"], meta["rows"]
                self.score = (meta["score"][0], meta["score"][1])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{self.checkpoint}: the checkpoint is damaged ({error}). Train again.") from None
        if meta["image_size"] != self.config.image_size:
            there = self._at(meta["image_size"], self._until(math.inf))
            self.model, self.config, self.images = there.model, there.config, there.images
        self.model.set_weights(weights)
        log.info("going on after %s", ", ".join(self.done))

    def answer(self) -> np.ndarray:
        """The model's probabilities for the test part, float32 (m, classes)."""
        answering = keras.Model(self.model.input, self.model.output)  # compiled itself, it would save an optimiser
        answering.compile(jit_compile=devices.jit_compile())
        return loop.predict(answering, self.images.part(TEST).pixels, loop.batch_size(self.config))


def _name(share: float) -> str:
    return f"finetune {share:.0%}"


def _mixes(config: TrainConfig) -> bool:
    """Whether images are mixed with one another, which needs their pixels at every step."""
    return bool(config.mixup or config.cutmix)


def plan(config: TrainConfig, blocks: tuple[tuple[str, ...], ...] = ()) -> Plan:
    """The plan of resolved settings."""
    assert config.image_size and config.epochs and isinstance(config.batch_size, int)
    assert isinstance(config.lr, int | float)
    assert config.weight_decay is not None and config.label_smoothing is not None and config.ema is not None
    return Plan(
        sizes=config.size_steps or (config.image_size,),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        optimizer=config.optimizer,
        warmup_epochs=config.warmup_epochs,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        policy=config.policy,
        mixup=config.mixup,
        cutmix=config.cutmix,
        seed=config.seed,
        patience=config.patience or 0,
        balance=config.balance,
        accumulate=config.accumulate,
        clip_norm=config.clip_norm or 0.0,
        layer_decay=config.layer_decay,
        blocks=blocks if config.layer_decay < 1 else (),
    )
