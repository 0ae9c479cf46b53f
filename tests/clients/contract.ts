// The contract's examples, by a client that is generated from openapi.json. test_typescript.py writes schema.ts and
// examples.ts, and runs this on a service with fresh demo data. It stops at the first response that is not the contract's.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import { getExample as example, postExample, putExample } from "./examples.js";
import type { components, paths } from "./schema.js";

type Patient = components["schemas"]["Patient"];
type PatientCreate = components["schemas"]["PatientCreate"];
type PatientHistoryEntry = components["schemas"]["PatientHistoryEntry"];
type PatientOrdering = components["schemas"]["PatientOrdering"];
type Change = components["schemas"]["Change"];
type ErrorType = components["schemas"]["ErrorType"];
type CurrentPrincipal = components["schemas"]["CurrentPrincipal"];
type Problem = components["schemas"]["Problem"];

const [, , baseUrl = "http://127.0.0.1:8000"] = process.argv;
const api = createClient<paths>({ baseUrl });

/** The data of a response, or an error that says what the service said. */
function must<T>({ data, error }: { data?: T; error?: Problem }): T {
  if (error !== undefined) throw new Error(`${error.status} ${error.title}: ${error.detail}`);
  assert(data !== undefined);
  return data;
}

async function getPatient(): Promise<void> {
  const patient = must(await api.GET("/patients/patients/{unique_id}/", { params: { path: { unique_id: "pat123" } } }));
  assert.deepEqual(patient, example);
}

async function listPatients(): Promise<void> {
  const everyone: Patient[] = must(await api.GET("/patients/patients/"));
  assert.deepEqual(everyone.find((patient) => patient.unique_id === "pat123"), example);
  const { data: page, response } = await api.GET("/patients/patients/", { params: { query: { limit: 2 } } });
  assert.equal(page?.length, 2);
  assert.match(response.headers.get("Link") ?? "", /rel="next"/);
  const found: Patient[] = [];
  const query: { limit: number; cursor?: string } = { limit: 10 };
  while (true) {
    const result = await api.GET("/patients/patients/", { params: { query } });
    found.push(...must(result));
    const cursor = result.response.headers.get("Next-Cursor");
    if (cursor === null) break;
    query.cursor = cursor;
  }
  assert(found.length > 10);
  assert.deepEqual(found, everyone);
}

async function getMyself(): Promise<void> {
  const { name, scopes, hospitals }: CurrentPrincipal = must(await api.GET("/me/"));
  assert.deepEqual([name, scopes.includes("patients:write"), hospitals], ["local", true, null]);
}

async function createPatient(): Promise<string> {
  const result = await api.POST("/patients/patients/", { body: postExample });
  const created = must(result);
  assert.equal(result.response.status, 201);
  assert.equal(result.response.headers.get("Location"), `/patients/patients/${created.unique_id}/`);
  const { unique_id, date_created, last_updated, patient_hospital, ...fields } = created;
  assert.deepEqual(patient_hospital.map((hospital) => hospital.unique_id), ["hos123", "hos456"]);
  assert.equal(date_created, last_updated);
  assert.deepEqual({ ...example, ...fields }, example);
  return unique_id;
}

async function updatePatient(unique_id: string): Promise<void> {
  const params = { path: { unique_id } };
  const changed = must(await api.PUT("/patients/patients/{unique_id}/", { params, body: putExample }));
  const { hospital_ids: _, doctor_ids: __, ...fields } = putExample;
  assert.deepEqual(changed, {
    ...example,
    ...fields,
    unique_id,
    patient_hospital: [{ unique_id: "hos789", hospital_name: "New Hospital" }],
    patient_doctor: [{ unique_id: "doc456", doctor_first_name: "Dr. Adams" }],
    date_created: changed.date_created,
    last_updated: changed.last_updated,
  });
  // what was read can be put back: nothing changes
  assert.deepEqual(must(await api.PUT("/patients/patients/{unique_id}/", { params, body: changed })), changed);
  // absent stays, null clears
  const cleared = must(await api.PATCH("/patients/patients/{unique_id}/", { params, body: { patient_title: null } }));
  assert.deepEqual([cleared.patient_title, cleared.patient_initials], [null, "J"]);
}

async function readHistory(unique_id: string): Promise<void> {
  const params = { path: { unique_id } };
  const history: PatientHistoryEntry[] = must(
    await api.GET("/patients/patients/{unique_id}/history/", { params }),
  );
  const [{ changes, record }] = history.slice(-2) as [PatientHistoryEntry];
  const race: string | null | undefined = changes.patient_race?.to;
  const hospitals: string[] | null | undefined = changes.hospital_ids?.from;
  assert.deepEqual([race, hospitals, record?.doctor_ids], ["African", ["hos123", "hos456"], ["doc456"]]);
}

async function deletePatient(unique_id: string): Promise<void> {
  const params = { path: { unique_id } };
  assert.equal((await api.DELETE("/patients/patients/{unique_id}/", { params })).response.status, 204);
  const { error } = await api.GET("/patients/patients/{unique_id}/", { params });
  assert.equal(error?.status, 404);
}

async function followChanges(): Promise<void> {
  const after = (await api.GET("/patients/patients/")).response.headers.get("Changes-Cursor");
  assert(after !== null);
  const { unique_id } = must(await api.POST("/patients/patients/", { body: { patient_last_name: "Followed" } }));
  const query = { after, resource: ["patients" as const], include: "record" as const, wait: 5 };
  const result = await api.GET("/changes/", { params: { query } });
  const [change, ...others]: Change[] = must(result);
  assert.deepEqual([change?.action, change?.unique_id, others], ["created", unique_id, []]);
  assert.equal(change?.record?.["patient_last_name"], "Followed");
  assert(result.response.headers.get("Next-Cursor") !== null);
}

async function problems(): Promise<void> {
  const body = { patient_first_name: "Nandi", hospital_ids: ["hos123", "hos999"] };
  const { data, error } = await api.POST("/patients/patients/", { body });
  assert.equal(data, undefined);
  assert.equal(error?.status, 422);
  assert.deepEqual(error.errors?.map(({ loc, type }) => [loc, type]), [
    [["body", "hospital_ids", 1], "unknown_hospital"],
  ]);
}

/** What the compiler has to refuse; never called. */
export async function refused(): Promise<void> {
  // @ts-expect-error there is no such field; openapi-fetch refuses that only of a body that is declared
  const body: PatientCreate = { patient_nickname: "Nan" };
  await api.POST("/patients/patients/", { body });
  // @ts-expect-error a hospital has a name
  await api.POST("/hospitals/hospitals/", { body: {} });
  // @ts-expect-error a set of ids is never null
  await api.POST("/patients/patients/", { body: { hospital_ids: null } });
  // @ts-expect-error the gender in a response is one of four
  const gender: "Male" | "Female" | null = example.patient_gender;
  // @ts-expect-error degrees are strings in responses
  const latitude: number | null = example.patient_latitude;
  // @ts-expect-error a field may be null
  const town: string = example.patient_town;
  // @ts-expect-error a query has no null
  await api.GET("/patients/patients/", { params: { query: { limit: null } } });
  // @ts-expect-error patients cannot be sorted by title
  const ordering: PatientOrdering = "patient_title";
  // @ts-expect-error the codes of errors are known
  const code: ErrorType = "wrong";
  console.log(gender, latitude, town, ordering, code);
}

await getPatient();
await listPatients();
await getMyself();
const unique_id = await createPatient();
await updatePatient(unique_id);
await readHistory(unique_id);
await deletePatient(unique_id);
await followChanges();
await problems();
console.log("as the contract has it");
