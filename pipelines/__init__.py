"""The layer that touches disk, network, clock, Prefect and MLflow."""
