"""What a run tells of itself: result.json, the live display, the summary and report.html."""
