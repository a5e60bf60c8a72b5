"""The estimators of arXiv 2506.13763: random subsets and the moment form, for comparison."""
