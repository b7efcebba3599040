"""Many runs: what to run, where it runs, and what is known about it. Importing it imports neither torch nor mlflow."""

import os

# before any import of mlflow, which reads them: nobody is told of a user's runs unless the user says so
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # not two lines for each run that ends
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# a server that is away is noticed in seconds instead of minutes: what it missed is told to it later
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
