"""The HTTP API, part by part: who may, what is asked, which routes there are, and what streams."""
