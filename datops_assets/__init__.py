"""datops: a folder of YAML becomes a running data platform on Dagster and PostgreSQL."""
