"""Who may ask for what: users, roles, tokens, the table of permissions, and the trail of what was asked."""
