"""Stage 2 of an evaluation: figures from stored predictions and the truth. No matcher runs here."""
