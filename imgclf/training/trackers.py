"""Report training to TensorBoard and MLflow."""

from typing import Any

from imgclf import environment
from imgclf.runs import Run
from imgclf.settings import TrainConfig

environment.prepare_keras()

import keras  # noqa: E402  (after prepare_keras, which must come before Keras's first import)


def callbacks(run: Run, config: TrainConfig) -> tuple[keras.callbacks.Callback, ...]:
    """Return the Keras callbacks for what the settings ask for."""
    found: list[keras.callbacks.Callback] = []
    if config.tensorboard:
        found.append(keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False))
    if config.mlflow:
        found.append(_MLflow(run, config))
    return tuple(found)


class _MLflow(keras.callbacks.Callback):
    """Parameters and every epoch's numbers go to MLflow's current experiment, as a run named after the folder."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        super().__init__()
        self._run, self._settings = run, config

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        import mlflow

        if mlflow.active_run() is None:
            mlflow.start_run(run_name=self._run.path.name)
            mlflow.log_params({key: value for key, value in self._settings.to_dict().items() if value is not None})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        import mlflow

        mlflow.log_metrics({key: float(value) for key, value in (logs or {}).items()}, step=epoch + 1)
