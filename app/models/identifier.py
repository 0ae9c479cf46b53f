"""Identifiers that others give to patients, such as identity numbers, and the types of these identifiers.

A patient's identifiers are a column of the patient, as its other fields are. Triggers write them to a table of their
own, too, by which patients are found, and whose primary key ensures that no two patients have the same identifier.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, PrimaryKeyConstraint, Table

from app.db.base import ID_TEXT, Base

UNIQUENESS_LEVELS = ("none", "register", "hospital")
"""The patients of whom only one can have a value of a type: none, all of the register, or those of a hospital."""
_UNIQUENESS_LIST_SQL = ", ".join(f"'{level}'" for level in UNIQUENESS_LEVELS)
TYPE_NAME_PATTERN = "^[a-z][a-z0-9_]{0,39}$"

identifier_types = Table(
    "identifier_types",
    Base.metadata,
    Column("name", ID_TEXT, primary_key=True),
    Column("checker", ID_TEXT),
    Column("uniqueness", ID_TEXT, nullable=False),
    Column("country", ID_TEXT),
    CheckConstraint(f"name ~ '{TYPE_NAME_PATTERN}'", name="name"),
    CheckConstraint(f"uniqueness IN ({_UNIQUENESS_LIST_SQL})", name="uniqueness"),
    CheckConstraint("country ~ '^[A-Z]{2}$'", name="country"),
    info={"serving_rights": "SELECT"},
)
"""The types of identifiers. The migration adds those that every register has; `patients-api identifier-types add` adds
others. None is changed or removed, because stored identifiers have been checked by it.

`checker` is the module of python-stdnum that checks the values, such as `za.idnr`. `country` is the country that issues
all identifiers of the type, if there is one.
"""

patient_identifiers = Table(
    "patient_identifiers",
    Base.metadata,
    Column("value", ID_TEXT),
    Column("type", ID_TEXT),
    Column("country", ID_TEXT),
    Column("scope", ID_TEXT),
    Column("patient_id", ID_TEXT, nullable=False, index=True),
    Column("hospital_id", ID_TEXT, ForeignKey("hospitals.unique_id", ondelete="RESTRICT")),
    PrimaryKeyConstraint("value", "type", "country", "scope"),
    Index(None, "hospital_id", "patient_id"),
    info={"serving_rights": "SELECT"},
)
"""The identifiers of all patients, which triggers of the table `patients` maintain.

`value` is in the normalized form. `country` is empty if it is unknown. `scope` is what the value is unique in: it is
empty for the whole register, the id of a hospital, or the id of the patient if other patients may have the value, too.
No foreign key refers to patients, because the first import replaces their table.
"""
