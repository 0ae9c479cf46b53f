"""The access report for patients: a printable page that lists who has seen or changed a patient's record."""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from app.audit.schemas import AccessEntry

_PAGE_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Who has seen the record of patient {patient}</title>
<style>
@page {{ size: A4; margin: 2cm; @bottom-right {{ content: counter(page) " / " counter(pages) }} }}
:root {{ color-scheme: light dark }}
body {{ font: 11pt/1.4 Georgia, serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 18pt; line-height: 1.2; overflow-wrap: anywhere }}
table {{ width: 100%; border-collapse: collapse }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid #999 }}
td {{ overflow-wrap: anywhere }}
td:first-child {{ white-space: nowrap }}
thead {{ display: table-header-group }}
tr {{ break-inside: avoid }}
.why {{ font-weight: bold }}
@media screen and (max-width: 40rem) {{
thead {{ display: none }}
tr, td {{ display: block }}
tr {{ padding: .5rem 0; border-bottom: 1px solid #999 }}
td {{ padding: 0; border: 0 }}
td:first-child {{ font-weight: bold }}
td:nth-child(2)::before {{ content: "Who: " }}
td:nth-child(3)::before {{ content: "What: " }}
}}
@media print {{
:root {{ color-scheme: light }}
body {{ font-size: 10pt; margin: 0; padding: 0 }}
}}
</style>
</head>
<body>
<h1>Who has seen or changed the record of patient {patient}</h1>
<p>Printed on {today}. {count} The most recent entry comes first. All times are in Coordinated Universal Time (UTC).</p>
<p>In the “Who” column, a name that begins with “key:” is a computer system that works for the clinic. A name that
begins with “oidc:” is a member of staff, shown by account number. Any other name stands for work done by the people who
run the system. You can ask the clinic who it was. {reads} It remembers changes for as long as it keeps the record
itself.</p>
<table>
<thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""
_READS_RECORDED = (
    "The system remembers for {period} who has seen the record, if the clinic had this switched on at the time."
)
_READS_NOT_RECORDED = (
    "<strong>This system does not record who has seen the record without changing it</strong>, except in an emergency. "
    "Entries of this kind are from a time when it did."
)
_ROW_TEMPLATE = "<tr><td>{when}</td><td>{who}</td><td>{what}{why}</td></tr>"


def render_report(patient_id: str, entries: Iterable[AccessEntry], retention_days: int, *, reads_audited: bool) -> str:
    """Return the access report of a patient as a self-contained HTML document.

    The report tells the patient whether reads are audited and, if so, how long the audit keeps them: `retention_days`.
    """
    rows = [
        _ROW_TEMPLATE.format(
            when=_format_timestamp(entry.time),
            who=escape(entry.principal),
            what=escape(entry.description),
            why="" if entry.reason is None else f'<br><span class="why">Reason given: {escape(entry.reason)}</span>',
        )
        for entry in entries
    ]
    return _PAGE_TEMPLATE.format(
        patient=escape(patient_id),
        today=f"{datetime.now(UTC):%d %B %Y}",
        count="One entry." if len(rows) == 1 else f"{len(rows)} entries.",
        reads=_READS_RECORDED.format(period=_format_period(retention_days)) if reads_audited else _READS_NOT_RECORDED,
        rows="\n".join(rows),
    )


def _format_period(days: int) -> str:
    years, remaining_days = divmod(days, 365)
    if remaining_days or not years:
        return "1 day" if days == 1 else f"{days} days"
    return "1 year" if years == 1 else f"{years} years"


def _format_timestamp(time: datetime) -> str:
    return f"{time.astimezone(UTC):%d %b %Y, %H:%M:%S}"
