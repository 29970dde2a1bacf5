"""In place of a package whose import alone takes a second and a half in each server. jsonschema does without."""

raise ImportError
