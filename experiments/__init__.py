"""Many runs: what to run, where it runs, and what is known about it. Importing it imports neither torch nor mlflow."""
