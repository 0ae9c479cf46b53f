const darkScheme = matchMedia("(prefers-color-scheme: dark)");

function followColorScheme() {
  document.documentElement.classList.toggle("dark-mode", darkScheme.matches);
}

darkScheme.addEventListener("change", followColorScheme);
followColorScheme();

/* Filter operations by words of their resource, method, path and summary; Swagger UI's own filter compares resources only. */
function filterOperations(resources, phrase) {
  const words = phrase.toLowerCase().split(/\s+/);
  const matches = (name, operation) => {
    const summary = operation.getIn(["operation", "summary"], "");
    const text = `${name} ${operation.get("method")} ${operation.get("path")} ${summary}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  return resources
    .map((resource, name) => resource.update("operations", (all) => all.filter((one) => matches(name, one))))
    .filter((resource) => !resource.get("operations").isEmpty());
}

function OperationFilter({ React }) {
  return ({ layoutActions, layoutSelectors }) => {
    const phrase = layoutSelectors.currentFilter();
    return React.createElement("input", {
      className: "operation-filter",
      type: "search",
      placeholder: "Filter operations",
      "aria-label": "Filter operations",
      value: typeof phrase === "string" ? phrase : "",
      onChange: (event) => layoutActions.updateFilter(event.target.value),
    });
  };
}

/* Insert what references point to, all of which is in the document, and in no circle. Swagger UI's own resolver reads the
whole document for each opened operation, which keeps the browser busy for seconds. */
function resolveReferences(value, openapi) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((item) => resolveReferences(item, openapi));
  const { $ref, ...members } = value;
  const target = $ref === undefined ? {} : memberAt(openapi, $ref.split("/").slice(1));
  return Object.fromEntries(
    Object.entries({ ...target, ...members }).map(([name, member]) => [name, resolveReferences(member, openapi)]),
  );
}

function memberAt(value, path) {
  return path.reduce((parent, name) => parent[name], value);
}

async function resolveSubtree(openapi, path) {
  return { errors: [], spec: resolveReferences(memberAt(openapi, path), openapi) };
}

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  filter: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [
    (system) => ({
      components: { FilterContainer: OperationFilter(system) },
      fn: { opsFilter: filterOperations, resolveSubtree },
    }),
  ],
});
