"""What fills the time: the probe first, so that there is always a finished model; then ever larger parts of the network
move, as long as time remains and validation says that it helps.

A stage is kept if it gets at least as many validation images right and their log loss falls: both must agree, since
with few images either alone is largely chance. After MISSES stages in a row that were not kept, it is enough.
"""

import io
import json
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imgclf.config import TrainConfig
from imgclf.data import loading
from imgclf.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from imgclf.errors import RunError
from imgclf.evaluation import curves
from imgclf.models import classifier
from imgclf.runs import write_atomic
from imgclf.training import boundary, devices, features, finetune, fitting, probe, rates, resolving
from imgclf.training.clock import Clock
from imgclf.training.fitting import OnProgress, Part, Plan

log = logging.getLogger("imgclf")

MISSES = 2
FEWEST_EPOCHS = 3
SHARES = (1 / 3, 2 / 3, 1.0)
"""Of the backbone's multiply-adds: what the stages after the probe set free."""

TRACING = 4.0
"""How many times as long as that of a forward pass the tracing of a training step takes."""

OVERHEAD = 1.2

ACCEPTED = "accepted"


@dataclass(frozen=True)
class Images:
    """The decoded images and where each side of the split stands among them."""

    dataset: Dataset
    pixels: loading.Pixels  # uint8 (n, s, s, 3)

    def rows(self, split: str) -> np.ndarray:
        """int (m,): where the samples of one side stand."""
        return np.array([i for i, sample in enumerate(self.dataset.samples) if sample.split == split], int)

    def part(self, split: str, activations: boundary.Activations | None = None) -> Part:
        """One side, as pixels, or as what a frozen lower part made of them."""
        rows = self.rows(split)
        labels = self.dataset.labels[rows]
        if activations is None:
            return Part(self.pixels.take(rows), labels)
        own = activations.take(rows)
        return Part(own, labels, own.draw)

    def validation(self, activations: boundary.Activations | None = None) -> Part | None:
        """The validation part; None where there is none."""
        return self.part(VALIDATION, activations) if len(self.rows(VALIDATION)) else None


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
    score: tuple[float, float] | None = None  # of validation: accuracy, log loss
    done: list[str] = field(default_factory=list)
    misses: int = 0
    may_halve: bool = False  # the batch, where the memory does not hold it

    def probe(self) -> np.ndarray:
        """Solve the head. All images go through the backbone in one stream, those of the test part too, and once.

        Returns:
            The probabilities for the test part, float32 (m, classes).
        """
        started = time.monotonic()
        config, images = self.config, self.images
        finetune.freeze(self.model)
        embeddings = features.frozen(
            self.model,
            images.dataset,
            images.pixels,
            config,
            views=(config.views or 0) if config.method == "probe" else 0,
            on_progress=self.on_progress,
        )
        labels, at = images.dataset.labels, {split: images.rows(split) for split in (TRAIN, VALIDATION, TEST)}
        kernel, bias = probe.solve(
            embeddings[:, at[TRAIN]],
            labels[at[TRAIN]],
            classes=self.model.output_shape[-1],
            seed=config.seed,
            balanced=config.balance != "none",
        )
        probe.place(self.model, kernel, bias)
        logits = embeddings[0] @ kernel + bias
        row: dict[str, Any] = {"phase": "probe", "epoch": 1, "image_size": config.image_size}
        row["loss"], row["accuracy"] = fitting.loss_and_accuracy(logits[at[TRAIN]], labels[at[TRAIN]])
        text = f"accuracy {row['accuracy']:.4f}"
        if len(at[VALIDATION]):
            row["val_loss"], row["val_accuracy"] = fitting.loss_and_accuracy(
                logits[at[VALIDATION]], labels[at[VALIDATION]]
            )
            text += f"  validation {row['val_accuracy']:.4f}"
            self.score = (row["val_accuracy"], row["val_loss"])
        row["seconds"] = time.monotonic() - started
        log.info("probe  %s  %.1f s", text, row["seconds"])
        self.rows.append(row)
        self.report(self.rows)
        return probe.softmax(logits[at[TEST]])

    def descend(self, phase: str, request: str | None, config: TrainConfig, deadline: float) -> None:
        """Move the upper layers, or all of them, and leave the model with the best weights on validation."""
        moving = resolving.for_steps(self.model, config)
        trained, train, validation = moving, self.images.part(TRAIN), self.images.validation()
        groups: tuple[tuple[str, ...], ...] = ()
        if config.method in ("finetune", "auto"):
            cut = self._unfreeze(moving, request, config)
            groups = boundary.blocks(self.model, cut) if cut else ()
            kept = self._activations(moving, cut, config)
            if kept is not None and cut is not None:
                trained = boundary.upper(moving, cut)
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
                fitting.fit(
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
        outputs = fitting.predict(logits, validation.pixels, fitting.batch_size(self.config))
        loss, accuracy = fitting.loss_and_accuracy(outputs, validation.labels)
        return accuracy, loss

    def find_rate(self, picture: Path) -> None:
        """Settle `--lr auto` by a range test, drawn as `picture`."""
        config = replace(self.config, lr=1.0, epochs=self.config.epochs or 1)
        moving = resolving.for_steps(self.model, config)
        if config.method in ("finetune", "auto"):
            self._unfreeze(moving, config.unfreeze_from, config)
        curve = rates.sweep(moving, self.images.part(TRAIN), plan(config))
        curves.rates(picture, curve.rates, curve.losses, curve.chosen)
        log.info(
            "learning rate %.2g, a tenth of the highest without a rising loss in the range test; see %s",
            curve.chosen,
            picture,
        )
        self.config = replace(self.config, lr=curve.chosen)

    def _unfreeze(self, moving: keras.Model, request: str | None, config: TrainConfig) -> boundary.Cut | None:
        """Free layers of what moves. The share of the arithmetic is told at one size, and `moving` may take any."""
        cut = finetune.unfreeze(self.model, request, batch_norm=config.batch_norm)
        for layer in classifier.backbone_layers(self.model):
            moving.get_layer(layer.name).trainable = layer.trainable
        return cut

    def _activations(
        self, moving: keras.Model, cut: boundary.Cut | None, config: TrainConfig
    ) -> boundary.Activations | None:
        """What passes the cut, kept; None where every epoch must see the pixels anew."""
        if cut is None or config.size_steps or _mixes(config) or (config.views is None and config.augment != "none"):
            return None
        kept = boundary.cached(
            moving, cut, self.images.dataset, self.images.pixels, config, on_progress=self.on_progress
        )
        if isinstance(kept, str):
            log.info("the full path is taken: activations at %s are not kept (%s)", cut.layer, kept)
            return None
        log.info("activations at %s are kept; an epoch is up to %.1f times as fast", cut.layer, cut.ideal_gain)
        return kept

    def improve(self) -> None:
        """Go on from the probe with larger and larger parts while it helps and time remains."""
        if self.score is None:
            log.info("there is no validation part to say what helps, so the probe is the answer")
            return
        self._restore()
        for share in SHARES:
            name = f"finetune {share:.0%}"
            if name in self.done:
                continue
            if self.misses >= MISSES:
                log.info("%d stages in a row did not help, so it is enough", MISSES)
                return
            if not self._stage(name, share):
                return

    def _stage(self, name: str, share: float) -> bool:
        """One stage, kept or not.

        Returns:
            Whether there may be time for another.
        """
        kept_back = self.clock.ending_s(len(self.config.export_formats), len(self.model.layers))
        wanted = replace(self.config, views=self.config.views if share < 1 and not _mixes(self.config) else None)
        left = self.clock.left_s(kept_back)
        start_s, epoch_s = self._cost(share, cached=wanted.views is not None) if left > 0 else (0.0, 1.0)
        assert wanted.epochs is not None
        epochs = min(wanted.epochs, int((self.clock.left_s(kept_back) - start_s) / epoch_s))
        if epochs < min(FEWEST_EPOCHS, wanted.epochs):
            log.info(
                "%s: left out: %d epochs would take about %.0f s, and %.0f s are left before the model is saved",
                name,
                min(FEWEST_EPOCHS, wanted.epochs),
                start_s + min(FEWEST_EPOCHS, wanted.epochs) * epoch_s,
                max(0.0, self.clock.left_s(kept_back)),
            )
            return False
        if epochs < wanted.epochs:
            log.info("%s: %d of %d epochs, for the time that is left", name, epochs, wanted.epochs)
        before, score = self.model.get_weights(), self.score
        count = len(self.rows)
        assert score is not None
        try:
            self.descend(name, str(share), replace(wanted, epochs=epochs), self.clock.deadline(kept_back))
        except RunError as error:
            log.warning("%s", error)
        tried = self.rows[count:]
        best = max(tried, key=lambda row: (row["val_accuracy"], -row["val_loss"]), default=None)
        outcome = "no epoch was finished" if best is None else judge(score, (best["val_accuracy"], best["val_loss"]))
        if outcome == ACCEPTED:
            assert best is not None
            self.score, self.misses = (best["val_accuracy"], best["val_loss"]), 0
        else:
            self.model.set_weights(before)
            self.misses += 1
        log.info("%s: %s", name, outcome)
        if tried:
            tried[-1]["outcome"] = outcome
        self.done.append(name)
        self.report(self.rows)
        self._save()
        return True

    def _cost(self, share: float, *, cached: bool) -> tuple[float, float]:
        """Seconds that a stage needs before its first epoch, and for each epoch, from timing the forward pass."""
        size = fitting.batch_size(self.config)
        batch = self.images.pixels[:size]
        network = keras.Model(self.model.input, self.model.get_layer("embedding").output)
        network.compile(jit_compile=devices.jit_compile())
        times = []
        for _ in range(3):
            started = time.monotonic()
            fitting.predict(network, batch, size)
            times.append(time.monotonic() - started)
        forward = min(times[1:]) / size  # the last batch is filled up
        count, all_images = len(self.images.rows(TRAIN)), len(self.images.pixels)
        tracing = TRACING * max(0.0, times[0] - forward * size)
        if not cached:
            return tracing, OVERHEAD * forward * (count * (1 + 2 * share) + len(self.images.rows(VALIDATION)))
        views = 1 + (self.config.views or 0)
        epoch = OVERHEAD * forward * share * (3 * count + len(self.images.rows(VALIDATION)))
        return tracing + views * all_images * forward * (1 - share), epoch

    def _save(self) -> None:
        """Keep what the stages so far have come to."""
        meta = {"stages": self.done, "misses": self.misses, "score": self.score, "rows": self.rows}
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
        self.model.set_weights(weights)
        log.info("going on after %s", ", ".join(self.done))

    def answer(self) -> np.ndarray:
        """The model's probabilities for the test part, float32 (m, classes)."""
        answering = keras.Model(self.model.input, self.model.output)  # compiled itself, it would save an optimiser
        answering.compile(jit_compile=devices.jit_compile())
        return fitting.predict(answering, self.images.part(TEST).pixels, fitting.batch_size(self.config))


def _mixes(config: TrainConfig) -> bool:
    """Whether images are mixed with one another, which needs their pixels at every step."""
    return bool(config.mixup or config.cutmix)


def judge(before: tuple[float, float], after: tuple[float, float]) -> str:
    """Whether a stage is kept, or why not, by validation accuracy and log loss before and after it."""
    if after[0] < before[0]:
        return f"refused: validation accuracy {after[0]:.4f} is below {before[0]:.4f}"
    if after[1] >= before[1]:
        return f"refused: validation loss {after[1]:.4f} is not below {before[1]:.4f}"
    return ACCEPTED


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
