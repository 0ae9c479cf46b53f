"""Faster writes: ASCII text is folded without calling a function, and an import may hash the entries that it inserts.

`fold` returns the same as before. As it is not STRICT any more, PostgreSQL inlines it, also in generated columns. The
trigger `chain` leaves entries alone that come with a hash: only the owner can insert one, because the serving role has
no right to insert values of this column.
"""

from alembic import op

revision = "20261130_05"
down_revision = "20261130_04"

# what unaccent leaves: letters that have another form in some places, and then what nobody sees or says
REPLACED = {
    "\u03c2": "\u03c3",  # Greek sigma at the end of a word
    "\u0623": "\u0627",  # Arabic alef with hamza above
    "\u0625": "\u0627",  # and below
    "\u0622": "\u0627",  # with madda
    "\u0671": "\u0627",  # wasla
    "\u0649": "\u064a",  # alef maksura: ya
}
REMOVED = (
    "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
    "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0653\u0654\u0655\u0670"  # Arabic vowel marks, tatweel
)
ANY_TEXT = f"""lower(extensions.unaccent(
    'extensions.unaccent'::regdictionary,
    translate(value, '{"".join(REPLACED)}{REMOVED}', '{"".join(REPLACED.values())}')
) COLLATE pg_c_utf8) COLLATE "C"
"""
"""The former body of `fold`. It calls `unaccent`, which is only STABLE, and so PostgreSQL does not inline it."""
FOLD_ANY_TEXT = f"""
CREATE OR REPLACE FUNCTION public.fold_any_text(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN {ANY_TEXT}
"""
FOLD = """
CREATE OR REPLACE FUNCTION public.fold(value text) RETURNS text
LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
RETURN CASE
    WHEN octet_length(value) = char_length(value) THEN lower(value COLLATE pg_c_utf8) COLLATE "C"
    ELSE public.fold_any_text(value)
END
"""
FORMER_FOLD = f"""
CREATE OR REPLACE FUNCTION public.fold(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN {ANY_TEXT}
"""
CHAIN = """
CREATE OR REPLACE TRIGGER chain BEFORE INSERT ON journal FOR EACH ROW {condition}
EXECUTE FUNCTION chain_journal_entry()
"""


def upgrade() -> None:
    op.execute(FOLD_ANY_TEXT)
    op.execute(FOLD)
    op.execute(CHAIN.format(condition="WHEN (NEW.hash IS NULL)"))


def downgrade() -> None:
    op.execute(CHAIN.format(condition=""))
    op.execute(FORMER_FOLD)
    op.execute("DROP FUNCTION fold_any_text(text)")
