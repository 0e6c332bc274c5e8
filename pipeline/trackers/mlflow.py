"""MLflow adapter: params, metrics and files of a run."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.trackers.tracked import Tracked, demand

MOST_PARAMS = 100
"""MLflow's limit for one request."""

LONGEST = 6000
"""MLflow's limit for the text of a param."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mlflow:
    """`uri` is a server or a local store (`sqlite:///mlflow.db`); null: what MLflow finds."""

    uri: str | None = None
    experiment: str = "presswork"

    def __post_init__(self) -> None:
        demand("mlflow", "mlflow")

    def log(self, run: Tracked) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        if self.uri is not None:
            mlflow.set_tracking_uri(self.uri)
        status = "FINISHED" if run.status == "ok" else "FAILED"
        params = {name: str(value)[:LONGEST] for name, value in run.params.items()}
        try:
            mlflow.set_experiment(self.experiment)
            mlflow.start_run(run_name=run.name, tags={"group": run.group, "status": run.status})
            names = list(params)
            for first in range(0, len(names), MOST_PARAMS):
                mlflow.log_params({n: params[n] for n in names[first : first + MOST_PARAMS]})
            mlflow.log_metrics(dict(run.metrics))
            for path in run.files:
                mlflow.log_artifact(str(path))
            mlflow.end_run(status)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"MLflow could not be told: {error}", remedy="look at tracker.uri"
            ) from error
