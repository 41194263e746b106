"""What keeps jobs safe under faults: causes, nodes and their windows, users, archives, sealed secrets."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Each part adds its own columns and tables."""
