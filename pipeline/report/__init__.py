"""Reports of a run: result.json, live progress, the summary and report.html."""
