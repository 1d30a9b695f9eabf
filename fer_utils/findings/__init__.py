"""What a run left, read and drawn: scores with intervals, comparisons, explanations, figures; reads files only."""
