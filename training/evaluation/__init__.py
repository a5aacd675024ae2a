"""Measuring a packaged release through the code that serves: retrieval, ranking, baselines, reports, comparisons."""
