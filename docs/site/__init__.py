"""The site: `python -m docs.site` builds it from the specs, the tables and the pages of docs/."""
