"""What a site expects of its policy, as a file: read, checked on a trace, and reported for people and for CI."""
