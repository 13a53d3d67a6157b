"""What one uses from Python in one line: two images matched, and a tracker that keeps its trajectory."""
