"""Pure decisions: who goes next, where, and who waits for what reason."""
