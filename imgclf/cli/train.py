"""imgclf train"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from imgclf import environment, runs
from imgclf.cli import options
from imgclf.errors import RunError, UsageError
from imgclf.settings import TrainConfig


def number_or_auto(text: str) -> float | str:
    """What `--lr` takes; the settings say what is wrong with anything else."""
    try:
        return float(text)
    except ValueError:
        return text


def whole_or_auto(text: str) -> int | str:
    """What `--batch-size` takes."""
    try:
        return int(text)
    except ValueError:
        return text


DECODING, MODEL, TRAINING = "Decoding", "Model", "Training"


def train(
    context: typer.Context,
    data: Annotated[Path | None, typer.Argument(help="A folder, an archive or a table of images with classes.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run folder, new or empty.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.json: do that run again; other options change it.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="A run folder: go on with an interrupted training, or, with more --epochs, with a finished one."
        ),
    ] = None,
    moved: options.Moved = None,
    layout: options.Layout = TrainConfig.layout,
    depth: options.Depth = TrainConfig.depth,
    path_column: options.PathColumn = TrainConfig.path_column,
    label_column: options.LabelColumn = TrainConfig.label_column,
    split_column: options.SplitColumn = TrainConfig.split_column,
    group_column: options.GroupColumn = TrainConfig.group_column,
    class_names: options.ClassNames = TrainConfig.class_names,
    box_margin: options.BoxMargin = TrainConfig.box_margin,
    box_min_size: options.BoxMinSize = TrainConfig.box_min_size,
    crowd: options.Crowd = TrainConfig.crowd,
    difficult: options.Difficult = TrainConfig.difficult,
    allow_truncated: options.AllowTruncated = TrainConfig.allow_truncated,
    labels: options.Labels = TrainConfig.labels,
    rename: options.Rename = TrainConfig.rename,
    class_map: options.ClassMap = TrainConfig.class_map,
    classes: options.Classes = TrainConfig.classes,
    limit: options.Limit = TrainConfig.limit,
    exclude: options.Exclude = TrainConfig.exclude,
    near_duplicates: options.NearDuplicates = TrainConfig.near_duplicates,
    thresholds: options.Thresholds = TrainConfig.thresholds,
    val_as: options.ValAs = TrainConfig.val_as,
    validation_fraction: options.ValidationFraction = TrainConfig.validation_fraction,
    test_fraction: options.TestFraction = TrainConfig.test_fraction,
    group_by: options.GroupBy = TrainConfig.group_by,
    test_group: options.TestGroup = TrainConfig.test_group,
    split_from: options.SplitFrom = TrainConfig.split_from,
    seed: Annotated[
        int,
        typer.Option(help="Of the split, the initial weights and the shuffling.", rich_help_panel=options.SPLITTING),
    ] = TrainConfig.seed,
    backbone: Annotated[
        str, typer.Option(help="auto, embedded, small-cnn, or a name from imgclf models.", rich_help_panel=MODEL)
    ] = TrainConfig.backbone,
    weights: Annotated[
        str, typer.Option(help="auto, hub, embedded, none, a weights file, or a run folder.", rich_help_panel=MODEL)
    ] = TrainConfig.weights,
    method: Annotated[
        str,
        typer.Option(
            help="auto (probe, then what helps, for two minutes or --time-limit), probe (head alone), finetune (upper "
            "layers), full (all layers) or scratch.",
            rich_help_panel=TRAINING,
        ),
    ] = TrainConfig.method,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the model's square input in px.", rich_help_panel=MODEL)
    ] = TrainConfig.image_size,
    image_sizes: Annotated[
        str | None,
        typer.Option(
            help="Growing sizes through the epochs, such as 40,48,64; with --method auto, sizes to try in this order.",
            rich_help_panel=MODEL,
        ),
    ] = TrainConfig.image_sizes,
    resize: Annotated[
        str, typer.Option(help="squash, crop or pad to a square.", rich_help_panel=DECODING)
    ] = TrainConfig.resize,
    window: Annotated[
        str | None,
        typer.Option(
            help="Of 16-bit and float grey, what is black and white: MIN,MAX or percentile.", rich_help_panel=DECODING
        ),
    ] = TrainConfig.window,
    cache: Annotated[
        str, typer.Option(help="Pixels and features: auto, off, memory, or a folder.", rich_help_panel=DECODING)
    ] = TrainConfig.cache,
    cache_limit_gb: Annotated[
        float, typer.Option(help="Size up to which all that stays on disk.", rich_help_panel=DECODING)
    ] = TrainConfig.cache_limit_gb,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", rich_help_panel=TRAINING)
    ] = TrainConfig.epochs,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation.", rich_help_panel=TRAINING),
    ] = TrainConfig.patience,
    batch_size: Annotated[
        Any,
        typer.Option(
            help="Images per step; auto is what the memory holds.",
            rich_help_panel=TRAINING,
            parser=whole_or_auto,
            metavar="<number>",
        ),
    ] = TrainConfig.batch_size,
    accumulate: Annotated[
        int, typer.Option(help="Batches whose gradients make one step.", rich_help_panel=TRAINING)
    ] = TrainConfig.accumulate,
    lr: Annotated[
        Any,
        typer.Option(
            help="Peak learning rate; auto runs a range test first.",
            rich_help_panel=TRAINING,
            parser=number_or_auto,
            metavar="<number>",
        ),
    ] = TrainConfig.lr,
    optimizer: Annotated[
        str, typer.Option(help="adamw or sgd (Nesterov momentum 0.9).", rich_help_panel=TRAINING)
    ] = TrainConfig.optimizer,
    clip_norm: Annotated[
        float | None, typer.Option(help="Greatest norm of all gradients together.", rich_help_panel=TRAINING)
    ] = TrainConfig.clip_norm,
    warmup_epochs: Annotated[
        float, typer.Option(help="Epochs of rising learning rate.", rich_help_panel=TRAINING)
    ] = TrainConfig.warmup_epochs,
    weight_decay: Annotated[
        float | None, typer.Option(help="Decoupled weight decay.", rich_help_panel=TRAINING)
    ] = TrainConfig.weight_decay,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of the target spread over all classes.", rich_help_panel=TRAINING)
    ] = TrainConfig.label_smoothing,
    dropout: Annotated[
        float, typer.Option(help="Share of the embedding dropped in training.", rich_help_panel=TRAINING)
    ] = TrainConfig.dropout,
    ema: Annotated[
        float | None, typer.Option(help="Momentum of the average of the weights; 0 is off.", rich_help_panel=TRAINING)
    ] = TrainConfig.ema,
    balance: Annotated[
        str, typer.Option(help="none, weights or sampling, for classes of different sizes.", rich_help_panel=TRAINING)
    ] = TrainConfig.balance,
    augment: Annotated[
        str,
        typer.Option(help=f"auto, {options.POLICY}", rich_help_panel=TRAINING),
    ] = TrainConfig.augment,
    keep_orientation: Annotated[
        bool, typer.Option("--keep-orientation", help=options.KEEP_ORIENTATION, rich_help_panel=TRAINING)
    ] = TrainConfig.keep_orientation,
    mixup: Annotated[
        float,
        typer.Option(help="Blend images and their labels: alpha, such as 0.2; 0 is off.", rich_help_panel=TRAINING),
    ] = TrainConfig.mixup,
    cutmix: Annotated[
        float,
        typer.Option(
            help="Paste boxes of other images, and mix labels: alpha, such as 1; 0 is off.", rich_help_panel=TRAINING
        ),
    ] = TrainConfig.cutmix,
    views: Annotated[
        int | None,
        typer.Option(help="Augmented views of each image, computed once and kept.", rich_help_panel=TRAINING),
    ] = TrainConfig.views,
    unfreeze_from: Annotated[
        str | None,
        typer.Option(
            help="What fine-tuning moves: a layer's or block's name, or a share such as 0.3.", rich_help_panel=TRAINING
        ),
    ] = TrainConfig.unfreeze_from,
    layer_decay: Annotated[
        float,
        typer.Option(help="Learning rate of each block as a share of that of the one above.", rich_help_panel=TRAINING),
    ] = TrainConfig.layer_decay,
    batch_norm: Annotated[
        str, typer.Option(help="In fine-tuning: frozen (statistics stay) or train.", rich_help_panel=TRAINING)
    ] = TrainConfig.batch_norm,
    precision: Annotated[
        str,
        typer.Option(
            help="Arithmetic: float32; mixed_bfloat16 in steps; bf16 for a probe's features (OpenVINO).",
            rich_help_panel=TRAINING,
        ),
    ] = TrainConfig.precision,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Such as 90s or 5m: the best model in that time, exports included.", rich_help_panel=TRAINING
        ),
    ] = TrainConfig.time_limit,
    device: Annotated[
        str, typer.Option(help="auto, cpu, gpu or tpu (through JAX).", rich_help_panel=TRAINING)
    ] = TrainConfig.device,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Ask TensorFlow and XLA for reproducible arithmetic.", rich_help_panel=TRAINING
        ),
    ] = TrainConfig.deterministic,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write logs for TensorBoard into the run.", rich_help_panel=TRAINING)
    ] = TrainConfig.tensorboard,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Log the run with MLflow.", rich_help_panel=TRAINING)
    ] = TrainConfig.mlflow,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = TrainConfig.offline,
    export: Annotated[
        str, typer.Option(help="litert, savedmodel, onnx, openvino, keras with commas, or none.")
    ] = TrainConfig.export,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and results.")] = False,
) -> None:
    """Train a classifier on a folder of images, test it, and export it."""
    from imgclf.cli import console
    from imgclf.data import readers, scans

    started = environment.process_start()
    console.err.quiet = quiet
    if resume:
        _refuse_others(context)
    elif moved:
        raise UsageError("--data tells --resume where the run's images lie now; without it, give DATA alone.")
    with console.phases() as on_progress:
        if resume:
            from imgclf.training import train as training

            run = training.resume(
                runs.find(resume), epochs=epochs, data=moved, on_progress=on_progress, started=started
            )
        else:
            settings, source = _settings(context, data, config)
            with scans.Scanner(settings.allow_truncated) as scanner:
                sees_all = settings.near_duplicates == "group" and settings.limit is None
                dataset = readers.read(
                    source,
                    settings,
                    classes=() if settings.relabels else settings.class_filter,
                    limit=None if settings.relabels else settings.limit,
                    on_progress=lambda done, total: on_progress("reading", done, total),
                    scanner=scanner if sees_all else None,
                )
            from imgclf.training import train as training  # after reading: a wrong folder fails before Keras loads

            run = training.train(dataset, settings, output=output, on_progress=on_progress, started=started)
    scores = runs.read_json(run.metrics) if run.metrics.exists() else None
    if json:
        console.print_json({"run": str(run.path), "metrics": scores})
    else:
        console.out.print(str(run.path))


def _refuse_others(context: typer.Context) -> None:
    """A resumed training keeps its own settings: others beside --resume would do nothing."""
    allowed = ("resume", "moved", "epochs", "json", "quiet")
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in allowed}
    given = sorted(name for name, source in sources.items() if source and source.name != "DEFAULT")
    if given:
        named = ", ".join("DATA" if name == "data" else "--" + name.replace("_", "-") for name in given)
        raise UsageError(f"--resume goes on with the run's own settings and data; leave out {named}.")


def _settings(context: typer.Context, data: Path | None, config: Path | None) -> tuple[TrainConfig, Path]:
    """The settings and the data of this command line, on top of those of `--config` where it is given."""
    values: dict[str, Any] = {}
    if config:
        config = config / "config.json" if config.is_dir() else config
        facts = runs.read_json(config)
        if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict):
            raise RunError(f"{config}: expected the config.json of a run, found no settings in it.")
        values = facts["config"]
        if data is None and not facts.get("data"):
            raise RunError(f"{config}: expected the path of its data, found none. Give DATA as well.")
        data = data or Path(facts["data"])
    if data is None:
        raise UsageError("expected a folder of images: imgclf train DATA.")
    known = {field.name for field in fields(TrainConfig)}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name in known and (not config or (source and source.name != "DEFAULT")):
            values[name] = value
    return TrainConfig.from_dict(values), data
