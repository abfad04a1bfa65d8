"""Estimators around LightGBM, and what is made of their scores. No Prefect, no MLflow."""
