"""Serve a registered model through MLflow from the text files it saved, never from a pickle."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedModel(PythonModel):
    """A thin door: whatever `models.forecasters.load` returns predicts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the folder that was registered."""
        self.model: Any = import_module("models.forecasters").load(Path(context.artifacts["model"]))

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: ARG002 MLflow's signature
        """Return one row of predictions per row of features."""
        return self.model.predict(model_input)


set_model(ServedModel())  # models-from-code: MLflow runs this file and takes what it sets
