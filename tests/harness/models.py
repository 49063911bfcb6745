"""The tables that every test finds empty, and the classes mapped to them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tests.harness.sites import NAME


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(NAME)


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(NAME)
    children: Mapped[list[Child]] = relationship(back_populates="parent", cascade="all, delete-orphan")


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(NAME)
    # Deferred: a child without its parent is refused at COMMIT only.
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id", deferrable=True, initially="DEFERRED"))
    parent: Mapped[Parent | None] = relationship(back_populates="children")


tables = Base.metadata
item: Table = tables.tables["item"]
