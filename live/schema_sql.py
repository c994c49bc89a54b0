"""The product's own tables: accounts, sign-in links, shows. They join commerce's in one metadata.

Responsible for names and types only. Kept apart from `commerce.schema_sql` because commerce must
not know what a show is; a drop there carries the show's id as a plain string.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from commerce.schema_sql import Id, Ms, metadata

account = Table(
    "account",
    metadata,
    Column("id", Id, primary_key=True),
    Column("login", String(120), nullable=False, unique=True),
    Column("name", String(120), nullable=False),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=True),  # argon2id; null: links only
    Column("created_at", Ms, nullable=False),
    Column("disabled_at", Ms, nullable=True),
    CheckConstraint("role IN ('viewer', 'moderator', 'host', 'operator')", name="role"),
)

sign_in_link = Table(
    "sign_in_link",
    metadata,
    Column("token_sha", String(64), primary_key=True),  # the token itself is never stored
    Column("account", Id, ForeignKey("account.id"), nullable=False),
    Column("expires_at", Ms, nullable=False),
    Column("used_at", Ms, nullable=True),
)

show = Table(
    "show",
    metadata,
    Column("id", Id, primary_key=True),
    Column("title", String(160), nullable=False),
    Column("state", String(16), nullable=False),
    Column("video", Text, nullable=True),
    Column("hidden", Boolean, nullable=False),
    Column("starts_at", Ms, nullable=True),
    Column("started_at", Ms, nullable=True),
    Column("ended_at", Ms, nullable=True),
    Column("pinned", Id, nullable=True),
    Column("pinned_at", Ms, nullable=True),
    Column("announcement", Text, nullable=False),
    Column("announced_at", Ms, nullable=True),
    Column("fence", Integer, nullable=False),  # grows with each console that takes over
    Column("action", Integer, nullable=False),  # the last action carried out under this fence
    Column("created_at", Ms, nullable=False),
    CheckConstraint("state IN ('scheduled', 'live', 'paused', 'ended')", name="state"),
    Index("ix_show_state_hidden", "state", "hidden"),
)
