"""Which settings of training are best? Try many by cross-validation, and score the best once on the test split."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import imgclf
from imgclf import environment, runs, storage, tasks
from imgclf.data import cells, loading, reading, splitting
from imgclf.data.dataset import TEST, Dataset
from imgclf.errors import DatasetError, ImgclfError, RunError
from imgclf.evaluation import facts as facts_of
from imgclf.evaluation import plots, scorers
from imgclf.questions import pages, search_space
from imgclf.questions.search_space import Choice, Space
from imgclf.runs import Run
from imgclf.settings import TrainConfig, TuneConfig

log = logging.getLogger("imgclf")

STUDY, FACTS, TABLE, PAGE, BEST = "study.db", facts_of.TUNE, "trials.csv", "tune.html", "best"

DIFFERENCES = (
    ("data_sha256", "other images"),
    ("config", "other settings of training"),
    ("tune", "another --search, --sampler or --trial-folds"),
)
"""What a folder records of a search, and what is said where it is not the same."""

CHECK_PX = 64
"""At this size images are decoded once, to leave out what cannot be."""

STARTUP_TRIALS = 5
"""Trials before pruning begins, and before TPE learns from them."""

OnProgress = Callable[..., None]


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Args:
        folder: with the study, the table, the page and the run.
        trials: finished ones, the best first: `number`, `state` ("complete", "pruned" or "failed"), `score` (the mean
            over the folds; None if failed), `deviation`, `folds` (that were scored), `seconds`, `settings`, `error`.
        importance: the share of the scores' variance that each setting explains; empty where that cannot be told.
        settings: those of the best trial.
        run: the best settings trained on the whole training split.
        sentence: what the best is, its score in cross-validation and on the test split.
    """

    folder: Path
    trials: list[dict[str, Any]]
    importance: dict[str, float]
    settings: dict[str, Any]
    run: Run
    sentence: str


@dataclass(frozen=True)
class _Study:
    """What the processes of a search share."""

    folder: Path
    dataset: Dataset
    folds: list[tuple[np.ndarray, np.ndarray]]
    config: TrainConfig
    tuning: TuneConfig
    space: Space
    count: int
    deadline: float

    def open(self, index: int = 0) -> Any:
        """Return the study of Optuna, whose choices for a trial follow from the seed and the trial's number."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(np.random.default_rng((self.config.seed, index)).integers(1 << 31))
        sampler: Any
        if self.tuning.sampler == "grid":
            sampler = _fixed(search_space.grid(self.space)[index])
            pruner: Any = optuna.pruners.NopPruner()  # so that a grid is the same in whatever order it is tried
        elif self.tuning.sampler == "random":
            sampler, pruner = optuna.samplers.RandomSampler(seed), optuna.pruners.MedianPruner(STARTUP_TRIALS)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
            pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS)
        url = f"sqlite:///{(self.folder / STUDY).resolve()}"
        storage_ = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        return optuna.create_study(
            storage=storage_,
            study_name="tune",
            load_if_exists=True,
            direction="maximize",
            sampler=sampler,
            pruner=pruner,
        )


def _fixed(chosen: Mapping[str, Any]) -> Any:
    """Return a sampler that chooses these settings."""
    import optuna

    class Fixed(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return chosen[param_name]

    return Fixed()


def tune(
    dataset: Dataset,
    tuning: TuneConfig,
    config: TrainConfig | None = None,
    *,
    output: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> Tuning:
    """Search settings of training, train with the best, and score it once on the test split.

    Each trial is cross-validated inside the training and validation images; the test split is never looked at before
    the end. A folder with a search for the same images, space and settings is continued, whatever ended it.

    Args:
        tuning: what to search, and how.
        config: the settings that the search leaves as they are.
        output: by default `runs/<data>-tune`.

    Raises:
        UsageError: if the space has an unknown setting or an impossible value, or a grid has a range.
        DatasetError: if a class has fewer training images than there are folds, or there is no test split.
        RunError: if the folder contains something else, such as a search on other data, or a damaged study; or every
            trial failed.
        MissingError: if Optuna is not installed.
    """
    started = time.monotonic()
    environment.require("optuna", "'imgclf[tune]'")
    config = reading.settled(dataset, config or TrainConfig())
    tasks.refuse(dataset.task, "tune")
    space = search_space.parse(tuning.search, config)
    count = len(search_space.grid(space)) if tuning.sampler == "grid" else tuning.trials
    part, folds = _folds(dataset, config, tuning)
    folder = Path(output) if output else Path("runs") / f"{dataset.name}-tune"
    deadline = started + (tuning.limit_s or float("inf"))
    study = _Study(folder, part, folds, config, tuning, space, min(count, tuning.trials), deadline)
    run = _open(study, dataset)
    with run.lock(), _told(folder / STUDY):
        _forget_interrupted(study)
        _run_trials(study, on_progress)
        return _conclude(study, dataset, on_progress)


def _folds(
    dataset: Dataset, config: TrainConfig, tuning: TuneConfig
) -> tuple[Dataset, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the images that trials may see, and the folds."""
    if not len(dataset.part(TEST)):
        raise DatasetError(f"{dataset.origin}: expected a test split to score the best settings on, found none.")
    seen = tuple(sample for sample in dataset.samples if sample.split != TEST)
    part, _ = loading.decode(replace(dataset, samples=seen), CHECK_PX, config.decoding)
    smallest, name = min((count, name) for name, count in part.counts().items())
    if smallest < tuning.trial_folds:
        raise DatasetError(
            f"{dataset.origin}: expected at least {tuning.trial_folds} training images of every class for "
            f"{tuning.trial_folds} folds, found {smallest} of {name!r}. Ask for fewer --trial-folds."
        )
    return part, splitting.folds(part, tuning.trial_folds, config.seed, reading.related(part, config))


def _open(study: _Study, dataset: Dataset) -> Run:
    """Return the folder, new or of the same search."""
    run, tuning = Run(study.folder), study.tuning
    facts: dict[str, Any] = {
        "imgclf": imgclf.__version__,
        "data": str(dataset.origin.resolve()),
        "data_sha256": dataset.digest(),
        "config": study.config.to_dict(),
        "tune": {"search": tuning.search, "sampler": tuning.sampler, "trial_folds": tuning.trial_folds},
    }
    if run.config.is_file():
        before = run.read_config()
        recorded = before.get("tune")
        if isinstance(recorded, dict) and _is_same_space(recorded.get("search"), study):
            facts["tune"]["search"] = recorded["search"]
        for key, what in DIFFERENCES:
            if before.get(key) != facts[key]:
                raise RunError(
                    f"{study.folder}: expected a search for the same images, space and settings, found one with "
                    f"{what}. Choose another -o."
                )
    else:
        runs.create(study.folder)
    storage.write_json(run.config, facts)
    return run


def _is_same_space(text: Any, study: _Study) -> bool:
    """Whether another spelling, such as one with more spaces, gives the same settings and values in the same order."""
    try:
        return list(search_space.parse(text, study.config).items()) == list(study.space.items())
    except (AttributeError, ImgclfError):
        return False


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn what Optuna raises over a damaged study into a message.

    Raises:
        RunError: if the study is damaged, or cannot be read or written.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        found = error.__cause__ if isinstance(error, StorageInternalError) else error
        why = getattr(found, "orig", None) or found
        if isinstance(found, OperationalError):  # such as a full disk, or a study that another process holds
            raise RunError(f"{file}: the study cannot be used ({why}). The same command continues.") from None
        raise RunError(
            f"{file}: the study is damaged ({why}). Remove it to repeat its trials, or choose another -o."
        ) from None


def _forget_interrupted(study: _Study) -> None:
    """Trials that a killed process left are tried again under their numbers."""
    import optuna

    found = study.open()
    for trial in found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        found.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _settled_trials(found: Any) -> dict[int, Any]:
    """Return the trials that count, by their index: finished, running, or refused for their settings."""
    return {
        trial.user_attrs["index"]: trial
        for trial in found.get_trials(deepcopy=False)
        if "index" in trial.user_attrs and (trial.state.name != "FAIL" or "error" in trial.user_attrs)
    }


def _claim(study: _Study) -> tuple[Any, Any] | None:
    """Return the study and the next trial; None where none is left, or the time is up."""
    with storage.locked(study.folder / "claim.lock", timeout_s=120.0) as is_mine:
        if not is_mine:
            raise RunError(f"{study.folder}: another process holds the study. Try again.")
        if time.monotonic() > study.deadline:
            return None
        taken = _settled_trials(study.open())
        index = next((number for number in range(study.count) if number not in taken), None)
        if index is None:
            return None
        found = study.open(index)
        trial = found.ask()
        trial.set_user_attr("index", index)
        for name, own in study.space.items():
            if isinstance(own, Choice):
                trial.suggest_categorical(name, list(own.values))
            elif own.is_whole:
                trial.suggest_int(name, int(own.low), int(own.high), log=own.log)
            else:
                trial.suggest_float(name, own.low, own.high, log=own.log)
        return found, trial


def _work(study: _Study, on_progress: OnProgress | None = None) -> None:
    """Try settings until none are left."""
    import optuna

    from imgclf.training.trials import Trials

    scorer = Trials(study.dataset, study.folds)
    while claimed := _claim(study):
        found, trial = claimed
        scores: list[float] = []
        state, begun = optuna.trial.TrialState.COMPLETE, time.monotonic()
        try:
            for step, score in enumerate(scorer.scores(replace(study.config, **trial.params))):
                scores.append(score)
                trial.report(float(np.mean(scores)), step)
                if step + 1 < len(study.folds) and trial.should_prune():
                    state = optuna.trial.TrialState.PRUNED
                    break
        except ImgclfError as error:
            trial.set_user_attr("error", str(error))
            state = optuna.trial.TrialState.FAIL
        trial.set_user_attr("scores", scores)
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 2))
        found.tell(trial, float(np.mean(scores)) if state.name == "COMPLETE" else None, state=state)
        if on_progress:
            on_progress("trials", len(_settled_trials(found)), study.count)


def _run_trials(study: _Study, on_progress: OnProgress | None) -> None:
    if study.tuning.jobs == 1:
        _work(study, on_progress)
        return
    left = study.deadline - time.monotonic()
    try:
        with ProcessPoolExecutor(study.tuning.jobs, mp_context=get_context("spawn")) as pool:
            working = {pool.submit(_work_for, study, left) for _ in range(study.tuning.jobs)}
            while working:
                done, working = wait(working, timeout=1.0, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
                if on_progress:
                    on_progress("trials", len(_settled_trials(study.open())), study.count)
    except BrokenProcessPool:
        raise RunError(
            f"{study.folder}: the process of a trial was killed, perhaps for want of memory. Finished trials are kept: "
            "the same command continues, perhaps with fewer --jobs."
        ) from None


def _work_for(study: _Study, left_s: float) -> None:
    """Try settings in a process of its own."""
    _work(replace(study, deadline=time.monotonic() + left_s))


def _rows(study: _Study) -> list[dict[str, Any]]:
    """Return the trials, the best first."""
    rows = []
    for index, trial in sorted(_settled_trials(study.open()).items()):
        scores = trial.user_attrs.get("scores", [])
        rows.append(
            {
                "number": index + 1,
                "state": {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
                "score": float(np.mean(scores)) if scores else None,
                "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                "folds": len(scores),
                "seconds": trial.user_attrs.get("seconds", 0.0),
                "settings": dict(trial.params),
                "error": trial.user_attrs.get("error", ""),
            }
        )
    order = {"complete": 0, "pruned": 1, "failed": 2}
    return sorted(rows, key=lambda row: (order[row["state"]], -(row["score"] or 0.0), row["number"]))


def _conclude(study: _Study, dataset: Dataset, on_progress: OnProgress | None) -> Tuning:
    rows = _rows(study)
    if not rows or rows[0]["state"] != "complete":
        why = f" ({rows[0]['error']})" if rows and rows[0]["error"] else ""
        raise RunError(f"{study.folder}: no trial was completed{why}. Give it more time, or other settings.")
    best, importance = rows[0], _importance(study, rows)
    run, score = _refit(study, dataset, best, on_progress)
    low, high = run.scores["intervals"]["accuracy"]
    chosen = ", ".join(f"{name}={value}" for name, value in best["settings"].items())
    sentence = (
        f"Best of {len(rows)} trials: {chosen}, accuracy {best['score']:.3f} in cross-validation, {score:.3f} on the "
        f"test split (95% CI {low:.3f} to {high:.3f})."
    )
    found = Tuning(study.folder, rows, importance, best["settings"], run, sentence)
    _write(found)
    return found


def _refit(
    study: _Study, dataset: Dataset, best: Mapping[str, Any], on_progress: OnProgress | None
) -> tuple[Run, float]:
    """Train with the best settings, unless that is done, and score the test split."""
    from imgclf.training import train as training

    run, note = Run(study.folder / BEST), study.folder / "best.json"
    is_same = note.is_file() and runs.read_json(note) == best["settings"]
    if not (is_same and run.artifact.is_file() and run.metrics.is_file()):
        if note.is_file() and not is_same:
            log.warning(
                "The best settings have changed since the test split was scored, so its score is a little too good now."
            )
        shutil.rmtree(run.path, ignore_errors=True)
        run = training.train(
            dataset,
            replace(study.config, **best["settings"]),
            output=run.path,
            with_report=False,
            on_progress=on_progress,
        )
        storage.write_json(note, best["settings"])
    return run, float(run.scores["accuracy"])


def _importance(study: _Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of the variance of scores that each setting explains (fANOVA, Hutter et al. 2014)."""
    import optuna

    complete = [row for row in rows if row["state"] == "complete"]
    if len(complete) < 4 or len({row["score"] for row in complete}) < 2 or len(study.space) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.config.seed)
    with contextlib.suppress(ValueError, RuntimeError):
        found = optuna.importance.get_param_importances(study.open(), evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}
    return {}


def _write(found: Tuning) -> None:
    """Write the table, the page and the facts."""
    names = list(found.settings)
    shared = ("score", "deviation", "folds", "seconds")
    rows = [["number", "state", *shared, *names]]
    for row in found.trials:
        own = ["" if row[key] is None else row[key] for key in shared]
        rows.append([row["number"], row["state"], *own, *(row["settings"].get(name, "") for name in names)])
    facts = {
        "sentence": found.sentence,
        "best": found.settings,
        "importance": found.importance,
        "trials": found.trials,
        "run": found.run.path.name,
    }
    shown = facts | {"trials": found.trials[: facts_of.TRIALS]}
    try:
        if not (found.run.path / FACTS).is_file() or runs.read_json(found.run.path / FACTS) != shown:
            storage.write_json(found.run.path / FACTS, shown)
            scorers.of(found.run).report(found.run, found.run.path)
        storage.write_atomic(found.folder / TABLE, "".join(map(cells.line, rows)).encode())
        storage.write_json(found.folder / FACTS, facts)
        storage.write_atomic(found.folder / PAGE, _page(found))
    except OSError as error:
        raise RunError(f"{found.folder}: the results cannot be written ({error.strerror}).") from None


def _page(found: Tuning) -> bytes:
    from imgclf.evaluation import thumbnails

    picture = thumbnails.data_uri(draw(found.trials, found.importance), "image/png")
    return pages.render("tune.html", found=found, names=list(found.settings), picture=picture)


def draw(trials: Sequence[Mapping[str, Any]], importance: Mapping[str, float]) -> bytes:
    """Draw the history, the importance, and the score by each setting. A PNG file."""
    names = list(trials[0]["settings"])
    known = [row for row in trials if row["score"] is not None]
    columns = 3
    lines = -(-(len(names) + 2) // columns)
    figure = plots.new_figure(10.0, 3.0 * lines)
    panels = iter(figure.subplots(lines, columns, squeeze=False).ravel())
    axes = next(panels)
    whole = sorted((row for row in known if row["state"] == "complete"), key=lambda row: row["number"])
    numbers, scores = [row["number"] for row in whole], [row["score"] for row in whole]
    axes.plot(numbers, scores, ".", color="0.6")
    axes.step(numbers, np.maximum.accumulate(scores), color=plots.BLUE, linewidth=1.5, where="post")
    axes.set(title="best so far", xlabel="trial", ylabel="accuracy")
    plots.tidy(axes)
    axes = next(panels)
    if importance:
        shares = sorted(importance.items(), key=lambda item: item[1])
        axes.barh([name for name, _ in shares], [share for _, share in shares], color=plots.BLUE)
        axes.set(title="importance", xlabel="share of the variance", xlim=(0, 1))
        plots.tidy(axes)
    else:
        axes.set_axis_off()
    for name, axes in zip(names, panels, strict=False):
        _slice(axes, name, known)
    for axes in panels:
        axes.set_axis_off()
    figure.tight_layout()
    return plots.to_png(figure)


def _slice(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Scores by the values of one setting; pruned trials are gray."""
    values = [row["settings"].get(name) for row in rows]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = list(dict.fromkeys(map(str, values)))
    at = values if is_number else [distinct.index(str(value)) for value in values]
    colors = [plots.BLUE if row["state"] == "complete" else "0.7" for row in rows]
    axes.scatter(at, [row["score"] for row in rows], c=colors, s=14)
    if not is_number:
        axes.set_xticks(range(len(distinct)), [plots.drawable(value) for value in distinct])
    elif min(values) > 0 and max(values) / min(values) > 50:
        axes.set_xscale("log")
    axes.set(title=name, ylabel="accuracy")
    plots.tidy(axes)


__all__ = ["Tuning", "draw", "tune"]
