"""What restricted principals can do with identifiers, and what they learn."""

from tests.hospital_scope.conftest import ScopedClients
from tests.patient_identifiers.support import INCLUDED, PATIENTS, ZA_ID, register, values_of

AT_A, AT_B = ({"type": "folder", "value": name, "hospital_id": f"hos{name}"} for name in "AB")


async def test_a_taken_identifier_says_no_more_than_that(scoped_clients: ScopedClients) -> None:
    """The response is the same whether the other patient is visible or not."""
    await register(scoped_clients.free, "at-b", ZA_ID, hospital_ids=["hosB"])
    bodies = []
    for client, hospital in ((scoped_clients.a, "hosA"), (scoped_clients.b, "hosB")):
        body = {"patient_last_name": "Doe", "hospital_ids": [hospital], "patient_identifiers": [ZA_ID]}
        response = await client.post(PATIENTS, json=body)
        assert response.status_code == 409
        assert "at-b" not in response.text
        bodies.append({**response.json(), "instance": "", "request_id": ""})
    assert bodies[0] == bodies[1]


async def test_identifiers_of_other_hospitals_are_kept(scoped_clients: ScopedClients) -> None:
    """A restricted principal changes those of its hospitals, and may send the others back as it read them."""
    await register(scoped_clients.free, "shared", AT_A, AT_B, ZA_ID, hospital_ids=["hosA", "hosB"])
    one = f"{PATIENTS}shared/"
    as_read = (await scoped_clients.a.get(one, params=INCLUDED)).json()
    assert (await scoped_clients.a.put(one, json=as_read)).status_code == 200
    assert (await scoped_clients.a.put(one, json={"patient_identifiers": []})).status_code == 200
    assert await values_of(scoped_clients.free, "shared") == ["B"]
    new_at_b = {**AT_B, "value": "C"}
    for identifier in (new_at_b, {**AT_B, "hospital_id": "nowhere"}):
        refused = await scoped_clients.a.put(one, json={"patient_identifiers": [identifier]})
        assert [error["type"] for error in refused.json()["errors"]] == ["unknown_hospital"]
        assert refused.json()["errors"][0]["msg"].endswith(", or you may not link it")
    assert (await scoped_clients.free.put(one, json={"patient_identifiers": [new_at_b]})).status_code == 200
    assert (await scoped_clients.a.post(f"{one}restore/", json={"version": 1})).status_code == 200
    assert await values_of(scoped_clients.free, "shared") == ["A", "C", "800101 5009 087"]
