"""Are the tokens right: teacher-forced scoring, an independent reference, and their comparison."""
