"""Run in the interpreter that has torch, or lm-eval; they import nothing of the suite."""
