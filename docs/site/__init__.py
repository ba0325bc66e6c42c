"""The site, from the specs, the tables of the code and the pages of docs/."""
