"""Statements for the links of staged lines to other records."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Delete, Insert, Select, all_, and_, any_, delete, exists, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID_TEXT
from app.staging.results import RowStatus

if TYPE_CHECKING:
    from app.staging.records import Staging


class StagedLinks:
    """One set of links, such as `hospital_ids`, of the lines in a staging table. Its statements are compiled once."""

    def __init__(self, staging: "Staging", name: str) -> None:
        self._staging = staging
        self._name = name
        self._relation = staging.repository.link_relations[name]
        self._requested_ids = staging.staging_table.c[name]
        """The ids of a line, which may occur twice."""

    @cached_property
    def unknown_statement(self) -> Select[Any]:
        """Statement that selects the line, the index and the id of each link to a record that does not exist."""
        target, staging_table = self._relation.target, self._staging.staging_table
        # each id is looked up once, because many lines link to the same few records
        distinct_ids = select(func.unnest(self._requested_ids).label("unique_id")).distinct().subquery("requested")
        target_exists = exists().where(target.c.unique_id == distinct_ids.c.unique_id)
        missing_ids = select(distinct_ids.c.unique_id).where(~target_exists)
        unknown_ids = func.array(missing_ids.scalar_subquery(), type_=ARRAY(ID_TEXT))
        asked = (
            func.unnest(self._requested_ids)
            .table_valued("unique_id", with_ordinality="ordinal", name="asked")
            .render_derived()
        )
        return (
            select(staging_table.c.line, asked.c.ordinal - literal_column("1"), asked.c.unique_id)
            .select_from(staging_table.join(asked, asked.c.unique_id == any_(unknown_ids)))
            .where(self._requested_ids.bool_op("&&")(unknown_ids))
        )

    @cached_property
    def delete_statement(self) -> Delete:
        """Statement that deletes the links of stored records that their lines replace and do not request."""
        staging, relation = self._staging, self._relation
        is_unrequested = and_(
            relation.owner_column == staging.staging_table.c.unique_id,
            relation.target_column != all_(self._requested_ids),
        )
        return delete(relation.link_table).where(
            is_unrequested, staging.has_status(RowStatus.UPDATED), staging.sets_field(self._name)
        )

    @cached_property
    def lock_targets_statement(self) -> Select[Any]:
        """Statement that locks the records to be linked, as the foreign keys do that a `TableBuild` lacks."""
        target, ids = self._relation.target, func.unnest(self._requested_ids)
        distinct_ids = func.array(select(ids).distinct().scalar_subquery(), type_=ARRAY(ID_TEXT))
        targets = select(target.c.unique_id).where(target.c.unique_id == any_(distinct_ids))
        return targets.order_by(target.c.unique_id).with_for_update(read=True, key_share=True)

    @cached_property
    def insert_statement(self) -> Insert:
        """Statement that inserts the links that do not exist yet."""
        staging, relation = self._staging, self._relation
        owner_id, key = staging.staging_table.c.unique_id, func.unnest(self._requested_ids).label("key")
        # foreign-key checks lock the targets, and all transactions need the same lock order; a `TableBuild` has none
        order = (key, owner_id) if staging.build is None else (owner_id, key)
        rows = select(owner_id, key).distinct().where(staging.has_status(RowStatus.CREATED, RowStatus.UPDATED))
        return (
            insert(relation.link_table)
            .from_select([relation.owner_column, relation.target_column], rows.order_by(*order))
            .on_conflict_do_nothing()
        )
