"""Turn results into one document, and the document into JSON, terminal text and pictures."""
