"""The instances of this platform: one folder a domain, one folder a thing, its YAML inside."""
