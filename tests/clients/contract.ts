// The contract's examples, by a client that is generated from openapi.json:
//
//   npm ci && npx openapi-typescript ../../openapi.json -o schema.d.ts && npx tsc && node contract.js http://127.0.0.1:8000
//
// It needs a service with fresh demo data, and stops at the first answer that is not the contract's.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Patient = components["schemas"]["Patient"];
type PatientCreate = components["schemas"]["PatientCreate"];
type PatientUpdate = components["schemas"]["PatientUpdate"];
type Problem = components["schemas"]["Problem"];

const [, , baseUrl = "http://127.0.0.1:8000"] = process.argv;
const api = createClient<paths>({ baseUrl });

/** What the contract's GET answers. */
const example: Patient = {
  unique_id: "pat123",
  patient_profile: { unique_id: "prof123", email: "user@example.com", first_name: "John", last_name: "Doe" },
  patient_email_address: "patient@example.com",
  patient_mobile_number: "+123456789",
  patient_title: "Mr.",
  patient_first_name: "John",
  patient_initials: "J",
  patient_last_name: "Doe",
  patient_date_of_birth: "1980-01-01",
  patient_gender: "Male",
  patient_race: "Caucasian",
  patient_physical_address: "123 Street Name",
  patient_address_line_1: "Apt 101",
  patient_town: "Sample Town",
  patient_region: "Sample Region",
  patient_province: "Sample Province",
  patient_country: "Sample Country",
  patient_postal_code: "12345",
  patient_latitude: "12.345678",
  patient_longitude: "-12.345678",
  patient_access_medical_care: "Public",
  patient_hospital: [{ unique_id: "hos123", hospital_name: "General Hospital" }],
  patient_doctor: [{ unique_id: "doc123", doctor_first_name: "Dr. Smith" }],
  date_created: "2023-01-01T12:00:00Z",
  last_updated: "2023-01-01T12:00:00Z",
};

/** The data of an answer, or an error that says what the service said. */
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
}

async function createPatient(): Promise<string> {
  const body: PatientCreate = {
    patient_profile: { unique_id: "prof123", email: "user@example.com", first_name: "John", last_name: "Doe" },
    patient_email_address: "patient@example.com",
    patient_mobile_number: "+123456789",
    patient_title: "Mr.",
    patient_first_name: "John",
    patient_initials: "J",
    patient_last_name: "Doe",
    patient_date_of_birth: "1980-01-01",
    patient_gender: "Male",
    patient_race: "Caucasian",
    patient_physical_address: "123 Street Name",
    patient_address_line_1: "Apt 101",
    patient_town: "Sample Town",
    patient_region: "Sample Region",
    patient_province: "Sample Province",
    patient_country: "Sample Country",
    patient_postal_code: "12345",
    patient_latitude: "12.345678",
    patient_longitude: "-12.345678",
    patient_access_medical_care: "Public",
    hospital_ids: ["hos123", "hos456"],
    doctor_ids: ["doc123"],
  };
  const answer = await api.POST("/patients/patients/", { body });
  const created = must(answer);
  assert.equal(answer.response.status, 201);
  assert.equal(answer.response.headers.get("Location"), `/patients/patients/${created.unique_id}/`);
  const { unique_id, date_created, last_updated, patient_hospital, ...fields } = created;
  assert.deepEqual(patient_hospital.map((hospital) => hospital.unique_id), ["hos123", "hos456"]);
  assert.equal(date_created, last_updated);
  assert.deepEqual({ ...example, ...fields }, example);
  return unique_id;
}

async function updatePatient(unique_id: string): Promise<void> {
  const params = { path: { unique_id } };
  const change: PatientUpdate = {
    patient_mobile_number: "+987654321",
    patient_race: "African",
    patient_province: "New Province",
    hospital_ids: ["hos789"],
    doctor_ids: ["doc456"],
  };
  const changed = must(await api.PUT("/patients/patients/{unique_id}/", { params, body: change }));
  const { hospital_ids: _, doctor_ids: __, ...fields } = change;
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

async function deletePatient(unique_id: string): Promise<void> {
  const params = { path: { unique_id } };
  assert.equal((await api.DELETE("/patients/patients/{unique_id}/", { params })).response.status, 204);
  const { error } = await api.GET("/patients/patients/{unique_id}/", { params });
  assert.equal(error?.status, 404);
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
  // @ts-expect-error an answer's gender is one of four
  const gender: "Male" | "Female" | null = example.patient_gender;
  // @ts-expect-error degrees are strings in answers
  const latitude: number | null = example.patient_latitude;
  // @ts-expect-error a field may be null
  const town: string = example.patient_town;
  // @ts-expect-error a query has no null
  await api.GET("/patients/patients/", { params: { query: { limit: null } } });
  console.log(gender, latitude, town);
}

await getPatient();
await listPatients();
const unique_id = await createPatient();
await updatePatient(unique_id);
await deletePatient(unique_id);
await problems();
console.log("as the contract has it");
